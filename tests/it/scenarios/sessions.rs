//! The life of a session: reserve, debit, reserve anew, give back.

use super::world::World;
use super::{check, play};

#[test]
fn a_session_reserves_then_debits_what_was_used_and_gives_back_the_rest() {
    check(
        "
        create S1 #1 rg10 ask 1000000 → rg10 granted 1000000 valid 3600 hold 300 threshold 200000
        moves → reserve main 0.01
        balance 10.00
        reserved 0.01
        available 9.99
        update S1 #2 rg10 used 700000 ask 2MiB → rg10 granted 2MiB valid 3600 hold 300 threshold 419430
        moves → debit main 0.01 reserve main 0.02
        balance 9.99
        reserved 0.02
        release S1 #3 rg10 used 5
        moves → release main 0.02
        balance 9.99
        reserved 0.00
        state S1 closed Released
        ",
    );
}

#[test]
fn an_update_debits_exactly_what_was_used_and_holds_the_new_grant_only() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        reserved 0.10
        update S1 #2 rg10 used 8MiB ask 5MiB → rg10 granted 5MiB …
        balance 9.92
        reserved 0.05
        grant S1 rg10 → 5242880 used 0
        ",
    );
}

#[test]
fn a_session_may_open_without_any_rating_group() {
    check(
        "
        create S1 #1 pdu=5 → ok
        reserved 0.00
        cdrs S1 0
        update S1 #2 rg10 ask {} → rg10 granted 10MiB …
        update S1 #3 rg10 used 1 START_OF_SERVICE_DATA_FLOW ask {}, rg20 ask {}
            → rg10 granted 10MiB …, rg20 granted 300s …
        release S1 #4 → ok
        balance 9.99
        ",
    );
}

#[test]
fn nothing_is_said_of_a_rating_group_that_neither_asks_nor_reports() {
    check(
        "
        create S1 #1 rg10 → ok
        create S2 #1 from=smf2 rg10, rg20 ask 60s → rg20 granted 60s valid 3600 threshold 6
        ",
    );
}

#[test]
fn releasing_without_usage_leaves_the_balance_as_it_was() {
    check(
        "
        create S1 #1 rg10 ask {} rg20 ask {} → rg10 granted 10MiB … rg20 granted 300s …
        reserved 0.60
        release S1 #2 rg10 used 0
        balance 10.00
        reserved 0.00
        ",
    );
}

#[test]
fn usage_in_a_create_is_debited() {
    check(
        "
        create S1 #1 rg10 used 3MiB ask 1MiB → rg10 granted 1MiB …
        balance 9.97
        reserved 0.01
        release S1 #2
        cdr S1 → cause 0 charged 0.03 rg10 3145728
        ",
    );
}

#[test]
fn usage_without_an_indicator_is_online_where_quota_is_managed() {
    check(
        "
        -- no grant, and none is asked for: recorded, not charged
        create S1 #1 rg10 used 1MiB → rg10 SUCCESS
        balance 10.00
        used S1 rg10 1048576
        -- asks in the same request
        update S1 #2 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        balance 9.99
        -- holds a grant
        update S1 #3 rg10 used 1MiB → rg10 SUCCESS
        balance 9.98
        -- an unknown indicator says nothing either
        update S1 #4 rg10 used 1MiB strange → rg10 SUCCESS
        balance 9.97
        -- another user plane function holds the grant
        update S1 #5 rg10@A used 1MiB → rg10@A SUCCESS
        balance 9.96
        -- another item of the same request asks for it
        create S2 #1 from=smf2 rg10@A used 1MiB rg10@B ask 1MiB → rg10@A SUCCESS rg10@B granted 1MiB …
        balance 9.95
        ",
    );
}

#[test]
fn the_indicator_decides_where_there_is_one() {
    check(
        "
        create S1 #1 rg10 used 1MiB online rg20 used 60s suspended rg90 used 1MiB offline
            → rg10 SUCCESS rg20 SUCCESS rg90 SUCCESS
        balance 9.89
        create S2 #1 from=smf2 rg10 ask 10MiB → rg10 granted 10MiB …
        reserved 0.10
        -- offline usage touches no reservation, though the group holds one
        update S2 #2 rg10 used 2MiB offline → rg10 SUCCESS
        balance 9.89
        reserved 0.10
        -- suspended usage is debited beside the reservation
        update S2 #3 rg10 used 2MiB suspended → rg10 SUCCESS
        balance 9.87
        reserved 0.10
        -- online and offline usage in one item
        update S2 #4 rg10 used 1MiB online used 7MiB offline ask 1MiB → rg10 granted 1MiB …
        balance 9.86
        release S2 #5
        cdr S2 → cause 0 charged 0.03 rg10 2097152 offline 2097152 suspended 1048576 online 7340032 offline
        ",
    );
}

#[test]
fn an_empty_request_beside_offline_usage_only_asks_for_nothing() {
    check(
        "
        create S1 #1 rg10 used 1MiB offline ask {} → rg10 SUCCESS
        reserved 0.00
        update S1 #2 rg10 used 1MiB offline ask 1MiB → rg10 granted 1MiB …
        reserved 0.01
        ",
    );
}

#[test]
fn one_rating_group_on_two_user_planes_has_two_quotas() {
    check(
        "
        create S1 #1 rg10@A ask 3MiB rg10@B ask 2MiB → rg10@A granted 3MiB … rg10@B granted 2MiB …
        reserved 0.05
        update S1 #2 rg10@A used 1MiB ask 1MiB → rg10@A granted 1MiB …
        balance 9.99
        reserved 0.03
        grant S1 rg10@B → 2097152 used 0
        -- the cumulative usage is the session's: half a block here and half a block there are one block
        update S1 #3 rg10@A used 512KiB rg10@B used 512KiB → rg10@A SUCCESS rg10@B SUCCESS
        balance 9.98
        release S1 #4
        reserved 0.00
        ",
    );
}

#[test]
fn two_grants_of_one_group_each_hold_what_they_may_cost() {
    check(
        "
        create S1 #1 rg10@A ask 512KiB rg10@B ask 512KiB → rg10@A granted 512KiB … rg10@B granted 512KiB …
        reserved 0.02
        update S1 #2 rg10@A used 0 QHT → rg10@A SUCCESS
        reserved 0.01
        release S1 #3 rg10@B used 512KiB
        balance 9.99
        reserved 0.00
        ",
    );
}

#[test]
fn a_report_that_ends_a_grant_gives_the_rest_back() {
    for trigger in ["QHT", "FINAL", "QUOTA_EXHAUSTED", "VALIDITY_TIME", "FORCED_REAUTHORISATION", "OTHER_QUOTA_TYPE"] {
        check(&format!(
            "
            create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
            update S1 #2 rg10 used 2MiB {trigger} → rg10 SUCCESS
            balance 9.98
            reserved 0.00
            grant S1 rg10 → none
            state S1 active
            update S1 #3 rg10 ask 1MiB → rg10 granted 1MiB …
            reserved 0.01
            ",
        ));
    }
}

#[test]
fn a_report_of_a_change_keeps_the_rest_reserved() {
    for trigger in ["RAT_CHANGE", "USER_LOCATION_CHANGE", "QOS_CHANGE", "QUOTA_THRESHOLD", "SOMETHING_NEW"] {
        check(&format!(
            "
            create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
            update S1 #2 rg10 used 2MiB {trigger} → rg10 SUCCESS
            balance 9.98
            reserved 0.08
            grant S1 rg10 → 10485760 used 2097152
            release S1 #3 rg10 used 1MiB
            balance 9.97
            reserved 0.00
            ",
        ));
    }
}

#[test]
fn triggers_of_the_session_count_where_the_containers_say_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        update S1 #2 FORCED_REAUTHORISATION rg10 used 1MiB RAT_CHANGE rg20 used 10s → rg10 SUCCESS rg20 SUCCESS
        grant S1 rg10 → 10485760 used 1048576
        grant S1 rg20 → none
        ",
    );
}

#[test]
fn a_report_with_a_request_is_granted_anew_whatever_its_trigger() {
    for trigger in ["VALIDITY_TIME", "QUOTA_EXHAUSTED", "QUOTA_THRESHOLD", "RAT_CHANGE", "FORCED_REAUTHORISATION"] {
        check(&format!(
            "
            create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
            tick 3600s
            update S1 #2 rg10 used 4MiB {trigger} ask 10MiB → rg10 granted 10MiB valid 3600 hold 300 threshold 2097152
            balance 9.96
            reserved 0.10
            ",
        ));
    }
}

#[test]
fn what_one_group_gives_back_another_may_be_granted_in_the_same_request() {
    check(
        "
        subscriber low
        create S1 #1 rg10 ask 5MiB → rg10 granted 5MiB … final terminate
        update S1 #2 rg90 ask 1MiB rg10 used 1MiB FINAL → rg90 granted 1MiB, rg10 SUCCESS
        balance 0.04
        reserved 0.01
        ",
    );
}

#[test]
fn a_session_keeps_its_subscriber() {
    check(
        "
        create S1 #1 rg10 ask 1MiB → rg10 granted 1MiB …
        update S1 #2 names=user rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        update S1 #3 names=mother rg10 used 1MiB ask 1MiB → refused SubscriberChanged
        release S1 #4 names=mother → refused SubscriberChanged
        balance 9.99
        reserved 0.01
        update S1 #3 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        ",
    );
}

#[test]
fn the_newest_notification_address_is_kept() {
    check(
        "
        create S1 #1 notify=http://smf/1 → ok
        notify S1 http://smf/1
        update S1 #2 → ok
        notify S1 http://smf/1
        update S1 #3 notify=http://smf/2 → ok
        notify S1 http://smf/2
        ",
    );
}

#[test]
fn an_aborting_session_reports_but_is_granted_nothing() {
    check(
        "
        create S1 #1 notify=http://smf rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        abort S1 → abort S1
        update S1 #2 rg10 used 1MiB ask 10MiB → rg10 END_USER_SERVICE_DENIED
        balance 9.99
        grant S1 rg10 → none
        reserved 0.10
        state S1 aborting
        release S1 #3 rg20 used 1s
        balance 9.89
        reserved 0.00
        state S1 closed Released
        cdr S1 → cause 0 charged 0.11 rg10 1048576 rg20 1s
        ",
    );
}

#[test]
fn any_update_ends_the_probing_of_an_idle_session() {
    check(
        "
        create S1 #1 notify=http://smf rg40 ask {} → rg40 granted 10MiB
        update S1 #3 rg40 ask {} → rg40 granted 10MiB
        tick 24h
        timer S1 → reauthorize S1 rg40
        state S1 probing
        update S1 #2 rg40 used 1 → rg40 SUCCESS                  -- overtaken, and a sign of life all the same
        state S1 active
        tick 24h
        timer S1 → reauthorize S1 rg40
        update S1 #4 → ok
        state S1 active
        ",
    );
}

#[test]
fn a_session_is_due_when_a_grant_or_its_patience_runs_out() {
    check(
        "
        create S1 #1 rg40 ask {} → rg40 granted 10MiB
        due S1 86400s
        update S1 #2 rg10 ask 1MiB → rg10 granted 1MiB …
        due S1 3660s
        tick 600s
        update S1 #3 rg20 ask {} → rg20 granted 300s …
        due S1 3060s
        update S1 #4 rg10 used 0 QHT → rg10 SUCCESS
        due S1 3660s
        release S1 #5
        due S1 never
        ",
    );
}

#[test]
fn a_family_shares_one_balance() {
    check(
        "
        subscriber mother
        create M #1 rg10 ask 1GiB → rg10 granted 1000MiB … final terminate      -- all of ten euros
        subscriber father
        create F #1 rg10 ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        create N #1 from=smf2 rg40 ask {} → rg40 granted 10MiB
        update M #2 rg10 used 100MiB ask 200MiB → rg10 granted 200MiB …
        balance 9.00
        reserved 2.00
        update F #2 rg10 ask 700MiB → rg10 granted 700MiB … final terminate
        available 0.00
        subscriber child
        create C #1 rg20 ask 60s → rg20 QUOTA_LIMIT_REACHED
        release M #3
        update C #2 rg20 ask 60s → rg20 granted 60s …
        balance 9.00
        reserved 7.10
        ",
    );
}

#[test]
fn nobody_is_charged_where_nobody_is_provisioned() {
    check(
        "
        create S1 #1 nobody rg10 used 5MiB ask {} → rg10 QUOTA_MANAGEMENT_NOT_APPLICABLE
        update S1 #2 rg10 used 5MiB online ask {} → rg10 QUOTA_MANAGEMENT_NOT_APPLICABLE
        release S1 #3 rg10 used 1
        cdr S1 → cause 0 charged 0.00 rg10 5242880 5242880 online 1
        create E #1 nobody from=amf PEC rg30 used 1x → rg30 QUOTA_MANAGEMENT_NOT_APPLICABLE
        cdr E → cause 0 charged 0.00 rg30 1x
        ",
    );
}

#[test]
fn offline_only_charging_records_and_moves_no_money() {
    check(
        "
        create S1 #1 offline-only rg10 used 5MiB ask {} → ok
        update S1 #2 rg10 used 5MiB online → ok
        update S1 #1 rg10 used 1MiB → ok
        release S1 #3 rg20 used 5s
        balance 10.00
        cdr S1 → cause 0 charged 0.00 rg10 5242880 5242880 online 1048576 rg20 5s
        update S1 #4 rg10 used 1MiB online → gone
        cdr S1/1 → cause 0 charged 0.00 rg10 1048576 online
        create E #1 offline-only IEC rg30 ask 1x → ok
        create P #1 offline-only PEC rg30 used 1x → ok
        balance 10.00
        cdrs E 1
        cdrs P 1
        ",
    );
}

#[test]
fn a_session_has_as_many_quotas_as_the_operator_allows() {
    let mut world = World::demo();
    world.rules.quotas_max = 2;
    play(
        world,
        "
        create S1 #1 rg10 ask 1MiB rg20 ask 1s rg30 ask 1x → refused TooManyQuotas
        create S1 #1 rg10 ask 1MiB rg10@A ask 1MiB → rg10 granted 1MiB … rg10@A granted 1MiB …
        update S1 #2 rg10 used 1MiB rg20 ask 1s → refused TooManyQuotas
        balance 10.00
        update S1 #2 rg10 used 1MiB rg10@A used 1MiB → rg10 SUCCESS rg10@A SUCCESS
        balance 9.98
        ",
    );
}

#[test]
fn a_second_session_for_a_pdu_session_replaces_the_one_that_was_used() {
    check(
        "
        create S1 #1 pdu=5 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB → rg10 SUCCESS
        reserved 0.09
        tick 60s
        create S2 #1 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        outbox → record S1/0
        reserved 0.01
        state S1 closed Superseded
        cdr S1 → cause 4 lost charged 0.01 rg10 1048576
        update S1 #3 rg10 used 1MiB → gone
        balance 9.98
        cdr S1/1 → cause 0 charged 0.01 rg10 1048576
        -- another PDU session, and another consumer's
        create S3 #1 pdu=6 rg10 ask 1MiB → rg10 granted 1MiB …
        create S4 #1 from=smf2 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        state S2 active
        release S2 #2
        tick 1s
        create S5 #1 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        reserved 0.03
        ",
    );
}
