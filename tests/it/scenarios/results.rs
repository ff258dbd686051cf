//! Result codes of rating groups, and refusals of whole requests.

use super::world::World;
use super::{check, play};

#[test]
fn each_rating_group_is_answered_by_itself() {
    check(
        "
        create S1 #1 rg10 ask 1MiB rg60 ask {} rg99 ask {} rg50 ask {} rg20 ask 60s
            → rg10 granted 1MiB … rg60 END_USER_SERVICE_DENIED rg99 RATING_FAILED
            rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE rg20 granted 60s …
        reserved 0.11
        update S1 #2 rg99 used 5 rg60 used 5 rg50 used 5 rg10 used 5
            → rg99 RATING_FAILED rg60 END_USER_SERVICE_DENIED rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
            rg10 SUCCESS
        balance 9.99
        ",
    );
}

#[test]
fn usage_of_groups_without_a_price_is_recorded_and_costs_nothing() {
    check(
        "
        create S1 #1 rg40 ask {} rg50 ask {} → rg40 granted 10MiB rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        update S1 #2 rg40 used 5MiB ask {} rg50 used 7MiB online
            → rg40 granted 10MiB rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        used S1 rg40 5242880
        used S1 rg50 7340032
        release S1 #3 rg60 used 1MiB online rg99 used 1MiB online
        balance 10.00
        cdr S1 → cause 0 charged 0.00 rg40 5242880 rg50 7340032 online rg60 1048576 online rg99 1048576 online
        ",
    );
}

#[test]
fn a_zero_rated_group_is_granted_whatever_the_account_holds() {
    check(
        "
        subscriber empty
        create S1 #1 rg40 ask {} rg10 ask {} → rg40 granted 10MiB rg10 QUOTA_LIMIT_REACHED
        update S1 #2 rg10 used 1MiB online rg40 used 1 ask {} → rg10 SUCCESS rg40 granted 10MiB
        balance -0.01
        update S1 #3 rg40 used 1 ask {} → rg40 granted 10MiB
        ",
    );
}

#[test]
fn a_blocked_subscriber_opens_nothing() {
    check(
        "
        subscriber blocked
        create S1 #1 rg10 ask {} → refused EndUserRequestDenied
        create S1 #1 IEC rg30 ask 1x → refused EndUserRequestDenied
        create S1 #1 → refused EndUserRequestDenied
        balance 10.00
        reserved 0.00
        ",
    );
}

#[test]
fn an_event_must_name_units_or_a_service() {
    check(
        "
        create E #1 event → refused NothingToCharge
        create E #1 IEC → refused NothingToCharge
        create E #1 PEC block=serviceSpecificationInfo → refused NothingToCharge
        create E #1 PEC block=registrationChargingInformation → ok
        cdrs E 1
        -- a session may name neither
        create S1 #1 → ok
        ",
    );
}

#[test]
fn a_service_that_is_not_charged_at_all_is_refused_as_such() {
    check(
        "
        plan 2 rg11 not-charged
        create S1 #1 rg11 ask {} → refused ChargingNotApplicable
        create S1 #1 rg11 ask {} rg10 ask 1MiB
            → rg11 QUOTA_MANAGEMENT_NOT_APPLICABLE rg10 granted 1MiB …
        update S1 #2 rg11 used 1MiB online → rg11 QUOTA_MANAGEMENT_NOT_APPLICABLE
        balance 10.00
        ",
    );
}

#[test]
fn a_service_is_rejected_outside_the_hours_in_which_it_is_sold() {
    check(
        "
        plan 2 rg10 sold 8 13
        create S1 #1 rg10 ask {} → rg10 granted 10MiB valid 3600 hold 300 threshold 2MiB
        now 12:30
        update S1 #2 rg10 used 1MiB ask {} → rg10 granted 10MiB valid 1800 hold 300 threshold 2MiB
        now 13:00
        update S1 #3 rg10 used 1MiB ask {} → rg10 END_USER_SERVICE_REJECTED
        balance 9.98
        reserved 0.00
        ",
    );
}

#[test]
fn out_of_credit_is_said_of_the_group_or_of_the_whole_create_as_the_operator_wants() {
    let table = |answer: &str, used: &str| {
        format!(
            "
            subscriber empty
            create S1 #1 rg10 ask {{}} rg20 ask {{}} → {answer}
            create S2 #1 from=smf2 rg10 ask {{}} rg40 ask {{}} → rg10 QUOTA_LIMIT_REACHED rg40 granted 10MiB
            -- what was used is charged, so the request cannot be refused
            create S3 #1 from=smf3 rg10 used 1MiB ask {{}} → {used}
            balance -0.01
            "
        )
    };
    let group = "rg10 QUOTA_LIMIT_REACHED";
    check(&table("rg10 QUOTA_LIMIT_REACHED rg20 QUOTA_LIMIT_REACHED", group));
    let mut world = World::demo();
    world.rules.refuse_create_without_credit = true;
    play(world, &table("refused QuotaLimitReached", group));
}

#[test]
fn a_subscriber_without_an_account_cannot_be_charged() {
    let mut world = World::demo();
    world.accounts.clear();
    play(world, "create S1 #1 rg10 ask {} → refused NoAccount");
}

#[test]
fn a_session_that_never_was_is_not_known() {
    check(
        "
        update S1 #1 rg10 ask {} → refused UnknownSession
        release S1 #1 → refused UnknownSession
        ",
    );
}

#[test]
fn the_largest_numbers_fail_to_rate_at_worst() {
    check(
        "
        subscriber postpaid
        create S1 #1 rg10 ask {} rg30 ask {} rg40 ask {} rg80 ask {} rg70 ask {}
            → rg10 granted 10MiB … rg30 granted 1x rg40 granted 10MiB rg80 granted 10MiB …
            rg70 granted 10MiB switch 20:00
        update S1 #2 rg30 used maxx ask {} rg10 used 1MiB → rg30 RATING_FAILED rg10 SUCCESS
        balance -0.01
        grant S1 rg30 → none
        update S1 #3 rg10 used max ask {} → rg10 RATING_FAILED
        balance -0.01
        grant S1 rg10 → none
        -- what costs nothing can always be counted
        update S1 #4 rg40 used max ask {} → rg40 granted 10MiB
        update S1 #5 rg40 used max ask {} → rg40 granted 10MiB
        update S1 #6 rg10 used up=max down=max online rg80 used max rg70 used max from 07:00 to 09:00
            → rg10 RATING_FAILED rg80 SUCCESS rg70 SUCCESS
        release S1 #7 rg20 used 4294967295s
        reserved 0.00
        ",
    );
}
