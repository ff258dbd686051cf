//! What happens to a session between messages: time, operators, consumers that are gone. The timer is fired where a
//! worker would fire it, and where it would come too early or twice.

use super::check;

#[test]
fn a_quota_expires_when_its_validity_and_the_grace_have_passed_without_a_report() {
    check(
        "
        create S1 #1 notify=http://smf rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        reserved 0.20
        tick 3659s
        timer S1 → nothing
        reserved 0.20
        tick 999ms
        timer S1 → nothing
        tick 1ms
        timer S1 → expired rg10 expired rg20
        moves → expire main 0.10 expire main 0.10
        balance 10.00
        reserved 0.00
        available 10.00
        grant S1 rg10 → none
        state S1 active
        due S1 82740s
        timer S1 → nothing
        ",
    );
}

#[test]
fn a_report_in_time_leaves_the_timer_nothing_to_do() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 3660s
        -- the report wins the race
        update S1 #2 rg10 used 1MiB VALIDITY_TIME ask 10MiB → rg10 granted 10MiB …
        timer S1 → later
        timer S1 → nothing
        reserved 0.10
        due S1 3660s
        -- the timer wins it: what is reported then is charged from what is free
        tick 3660s
        timer S1 → expired rg10
        update S1 #3 rg10 used 1MiB VALIDITY_TIME ask 10MiB → rg10 granted 10MiB …
        balance 9.98
        reserved 0.10
        ",
    );
}

#[test]
fn only_quotas_whose_own_time_has_come_expire() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 1800s
        update S1 #2 rg20 ask 60s → rg20 granted 60s …
        tick 1860s
        timer S1 → expired rg10
        grant S1 rg20 → 60 used 0
        reserved 0.10
        due S1 1800s
        tick 1800s
        timer S1 → expired rg20
        reserved 0.00
        ",
    );
}

#[test]
fn what_was_used_under_an_expired_grant_is_charged_when_it_is_reported() {
    check(
        "
        create S1 #1 rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        tick 2h
        timer S1 → expired rg10 expired rg20
        -- no indicator, and nothing is asked for
        update S1 #2 rg10 used 3MiB VALIDITY_TIME → rg10 SUCCESS
        balance 9.97
        -- from here on nothing is known to have been granted
        update S1 #3 rg10 used 3MiB → rg10 SUCCESS
        balance 9.97
        release S1 #4 rg20 used 30s
        balance 9.87
        cdr S1 → cause 0 charged 0.13 rg10 3145728 VALIDITY_TIME 3145728 rg20 30s
        ",
    );
}

#[test]
fn a_partly_used_grant_gives_back_what_is_left_of_it() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 4MiB RAT_CHANGE → rg10 SUCCESS
        reserved 0.06
        tick 2h
        timer S1 → expired rg10
        moves → expire main 0.06
        balance 9.96
        reserved 0.00
        why S1 rg10 → granted 10MiB used 4MiB main reserved 0.10 released 0.00 expired 0.06 charged 0.04 expired 7200s #2 0s SUCCESS
        ",
    );
}

#[test]
fn a_reservation_of_an_expired_balance_is_gone_when_the_quota_expires() {
    check(
        "
        subscriber bundle
        have data-bundle 20000000 octets until 12:30
        create S1 #1 rg90 ask 10MiB → rg90 granted 10MiB valid 1800
        tick 1860s
        timer S1 → expired rg90
        moves → expire data-bundle 9514240 expire data-bundle 10485760 expire data-bundle 10485760
        balance data-bundle 0
        reserved data-bundle 0
        ",
    );
}

#[test]
fn an_expired_quota_frees_its_money_for_others() {
    check(
        "
        subscriber low
        create S1 #1 rg10 ask 5MiB → rg10 granted 5MiB valid 3600 hold 300 final terminate
        create S2 #1 from=smf2 rg10 ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        tick 3660s
        timer S1 → expired rg10
        update S2 #2 rg10 ask 1MiB → rg10 granted 1MiB …
        ",
    );
}

#[test]
fn an_idle_session_is_probed_then_closed_abnormally() {
    check(
        "
        create S1 #1 pdu=5 notify=http://smf rg10 ask 10MiB rg40 ask {} rg10@A ask 1MiB
            → rg10 granted 10MiB … rg40 granted 10MiB rg10@A granted 1MiB …
        update S1 #2 rg10 used 1MiB QUOTA_THRESHOLD ask 10MiB → rg10 granted 10MiB …
        tick 86399s
        timer S1 → expired rg10 expired rg10@A
        state S1 active
        tick 999ms
        timer S1 → nothing
        tick 1ms
        timer S1 → reauthorize S1 rg10 rg40
        state S1 probing
        due S1 60s
        timer S1 → nothing
        tick 59s
        timer S1 → nothing
        tick 1s
        timer S1 → closed Idle record S1/0
        state S1 closed Idle
        due S1 never
        reserved 0.00
        cdr S1 → cause 4 lost charged 0.01 rg10 1048576 QUOTA_THRESHOLD
        record S1 → opened 12:00:00 for 86460s
        timer S1 → nothing
        tick 1h
        timer S1 → nothing
        told S1 → 86400s probe
        -- its PDU session can be charged anew
        create S2 #1 pdu=5 at 15:00 notify=http://smf → ok
        state S1 closed Idle
        ",
    );
}

#[test]
fn an_update_during_the_probe_keeps_the_session() {
    check(
        "
        create S1 #1 notify=http://smf rg40 ask {} → rg40 granted 10MiB
        tick 24h
        timer S1 → reauthorize S1 rg40
        tick 60s
        update S1 #2 rg40 used 1MiB FORCED_REAUTHORISATION ask {} → rg40 granted 10MiB
        state S1 active
        timer S1 → later
        due S1 86400s
        -- a release does as well
        tick 24h
        timer S1 → reauthorize S1 rg40
        release S1 #3
        timer S1 → nothing
        cdr S1 → cause 0 charged 0.00 rg40 1048576 FORCED_REAUTHORISATION
        ",
    );
}

#[test]
fn an_idle_session_that_nobody_can_be_asked_about_is_closed_at_once() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 24h
        timer S1 → closed Idle record S1/0
        moves → expire main 0.10
        cdr S1 → cause 4 lost charged 0.00
        -- what is reported after all is charged, in a record of its own
        update S1 #2 rg10 used 2MiB → gone
        balance 9.98
        outbox → record S1/1
        cdr S1/1 → cause 0 charged 0.02 rg10 2097152
        release S1 #3 → again gone
        cdrs S1 2
        ",
    );
}

#[test]
fn one_firing_does_everything_that_is_due() {
    check(
        "
        rules record=1h
        create S1 #1 notify=http://smf rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        tick 30d
        timer S1 → expired rg10 expired rg20 reauthorize S1 rg10 rg20 record S1/0
        state S1 probing
        tick 30d
        timer S1 → closed Idle record S1/1
        cdr S1 → #1 cause 17 charged 0.00
        cdr S1/1 → #2 cause 4 lost charged 0.00
        ",
    );
}

#[test]
fn grants_that_are_still_valid_are_released_when_a_session_is_closed() {
    check(
        "
        rules supervision=600s
        create S1 #1 notify=http://smf rg10 ask 10MiB → rg10 granted 10MiB …
        tick 600s
        timer S1 → reauthorize S1 rg10
        reserved 0.10
        tick 60s
        timer S1 → closed Idle record S1/0
        moves → release main 0.10
        reserved 0.00
        ",
    );
}

#[test]
fn sessions_that_nobody_pays_for_are_supervised_too() {
    check(
        "
        create S1 #1 nobody notify=http://smf rg10 used 5 → rg10 QUOTA_MANAGEMENT_NOT_APPLICABLE
        tick 24h
        timer S1 → reauthorize S1 rg10
        tick 60s
        timer S1 → closed Idle record S1/0
        cdr S1 → cause 4 lost charged 0.00 rg10 5
        create S2 #1 offline-only rg10 used 7 → ok
        tick 24h
        timer S2 → closed Idle record S2/0
        cdr S2 → cause 4 lost charged 0.00 rg10 7
        ",
    );
}

#[test]
fn an_abort_that_is_followed_by_a_release_ends_normally() {
    check(
        "
        create S1 #1 notify=http://smf rg10 ask 10MiB → rg10 granted 10MiB …
        tick 10s
        abort S1 → abort S1
        state S1 aborting
        abort S1 → nothing
        reauthorize S1 → nothing
        due S1 60s
        tick 59s
        timer S1 → nothing
        update S1 #2 rg10 used 1MiB ask {} → rg10 END_USER_SERVICE_DENIED
        due S1 1s
        release S1 #3 rg10 used 1MiB online
        timer S1 → nothing
        balance 9.98
        reserved 0.00
        state S1 closed Released
        cdr S1 → cause 0 charged 0.02 rg10 1048576 1048576 online
        told S1 → 10s abort operator
        ",
    );
}

#[test]
fn an_abort_without_a_release_is_closed_abnormally() {
    check(
        "
        create S1 #1 notify=http://smf rg10 ask 10MiB → rg10 granted 10MiB …
        abort S1 → abort S1
        -- reports do not stay the end
        tick 30s
        update S1 #2 rg20 used 10s → rg20 SUCCESS
        tick 29s
        timer S1 → nothing
        tick 1s
        timer S1 → closed AbortUnanswered record S1/0
        reserved 0.00
        cdr S1 → cause 4 lost charged 0.00 rg20 10s
        ",
    );
}

#[test]
fn an_abort_of_a_probed_session_replaces_the_probe() {
    check(
        "
        create S1 #1 notify=http://smf → ok
        tick 24h
        timer S1 → reauthorize S1
        abort S1 → abort S1
        tick 60s
        timer S1 → closed AbortUnanswered record S1/0
        ",
    );
}

#[test]
fn a_session_whose_consumer_cannot_be_told_is_aborted_at_once() {
    check(
        "
        create S1 #1 pdu=5 rg10 ask 10MiB → rg10 granted 10MiB …
        abort S1 → closed Aborted record S1/0
        moves → release main 0.10
        -- the consumer may still report, so nothing is known to be lost
        cdr S1 → cause 20 charged 0.00
        release S1 #2 rg10 used 1MiB → gone
        balance 9.99
        cdr S1/1 → cause 0 charged 0.01 rg10 1048576
        ",
    );
}

#[test]
fn a_consumer_that_does_not_know_the_session_any_more_ends_it() {
    check(
        "
        create S1 #1 notify=http://smf rg10 ask 10MiB → rg10 granted 10MiB …
        gone S1 http://other → nothing
        gone S1 http://smf → closed ConsumerGone record S1/0
        gone S1 http://smf → nothing
        reserved 0.00
        cdr S1 → cause 4 lost charged 0.00
        create S2 #1 from=smf2 notify=http://smf/1 → ok
        update S2 #2 notify=http://smf/2 → ok
        -- answered at the address that it had before
        gone S2 http://smf/1 → nothing
        state S2 active
        ",
    );
}

#[test]
fn a_consumer_that_has_moved_is_told_at_its_new_address() {
    check(
        "
        create S1 #1 notify=http://smf/1 → ok
        moved S1 http://smf/1 http://smf/2
        notify S1 http://smf/2
        moved S1 http://smf/1 http://smf/3 → nothing
        moved S1 http://smf/2 http://smf/2 → nothing
        notify S1 http://smf/2
        cdrs S1 0
        release S1 #2
        moved S1 http://smf/2 http://smf/3 → nothing
        ",
    );
}

#[test]
fn a_reauthorization_names_what_it_concerns() {
    check(
        "
        create S1 #1 notify=http://smf rg10@A ask 1MiB rg10@B ask 1MiB rg20 ask 60s rg50 ask {}
            → rg10@A granted 1MiB … rg10@B granted 1MiB … rg20 granted 60s … rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        reauthorize S1 → reauthorize S1 rg10 rg20 rg50
        reauthorize S1 rg20 rg99 → reauthorize S1 rg20
        reauthorize S1 rg99 → nothing
        state S1 active
        reserved 0.12
        update S1 #2 rg20 used 30s FORCED_REAUTHORISATION ask 60s → rg20 granted 60s …
        told S1 → 0s reauthorize 3 0s reauthorize 1
        create S2 #1 from=smf2 rg10 ask 1MiB → rg10 granted 1MiB …
        reauthorize S2 → nothing
        release S1 #3
        reauthorize S1 → nothing
        abort S1 → nothing
        ",
    );
}

#[test]
fn a_credit_concerns_exactly_the_rating_groups_that_ran_out() {
    check(
        "
        subscriber low
        create S1 #1 notify=http://smf rg40 ask {} rg10 ask 3MiB → rg40 granted 10MiB rg10 granted 3MiB …
        ran-out S1 →
        update S1 #2 rg10 used 3MiB ask 10MiB rg20 ask 60s rg60 ask {}
            → rg10 granted 2MiB valid 3600 hold 300 final terminate rg20 QUOTA_LIMIT_REACHED rg60 END_USER_SERVICE_DENIED
        ran-out S1 → rg10 rg20
        -- the last grant stays the last one when it is used up, and when it expires
        update S1 #3 rg10 used 2MiB QUOTA_EXHAUSTED → rg10 SUCCESS
        ran-out S1 → rg10 rg20
        credit main 10.00
        reauthorize S1 rg10 rg20 → reauthorize S1 rg10 rg20
        update S1 #4 rg10 ask 1MiB → rg10 granted 1MiB …
        ran-out S1 → rg20
        update S1 #5 rg20 ask 60s → rg20 granted 60s …
        ran-out S1 →
        why S1 rg10 → granted 6MiB used 5MiB main reserved 0.06 released 0.00 expired 0.00 charged 0.05 #4 0s SUCCESS
        ",
    );
}

#[test]
fn a_last_grant_that_expired_still_waits_for_credit() {
    check(
        "
        subscriber low
        create S1 #1 notify=http://smf rg10 ask 10MiB → rg10 granted 5MiB valid 3600 hold 300 final terminate
        tick 2h
        timer S1 → expired rg10
        ran-out S1 → rg10
        ",
    );
}

#[test]
fn why_tells_each_rating_group_what_it_got_and_why() {
    check(
        "
        subscriber bundle
        have data-bundle 2097152 octets
        create S1 #1 rg90 ask 3MiB rg60 ask {} → rg90 granted 3MiB rg60 END_USER_SERVICE_DENIED
        tick 600s
        a: update S1 #2 rg90 used 3MiB #1 ask 1MiB → rg90 granted 1MiB
        tick 10s
        copy a marked rg90 used 1MiB #2 → rg90 granted 1MiB
        release S1 #3
        why S1 rg90 → granted 4MiB used 4MiB data-bundle reserved 2097152 released 0 expired 0 charged 2097152 main reserved 0.02 released 0.01 expired 0.00 charged 0.02 #2 600s SUCCESS
        why S1 rg60 → granted used #1 0s END_USER_SERVICE_DENIED
        why S1 rg10 → nothing
        ",
    );
}
