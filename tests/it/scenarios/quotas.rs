//! What a grant says: its amount, its unit, its validity and thresholds.

use super::check;

#[test]
fn what_is_asked_for_is_granted_as_asked() {
    check(
        "
        create A #1 from=a rg10 ask 1 → rg10 granted 1 valid 3600 hold 300
        create B #1 from=b rg10 ask 1000000 → rg10 granted 1000000 valid 3600 hold 300 threshold 200000
        create C #1 from=c rg10 ask 1MiB → rg10 granted 1MiB valid 3600 hold 300 threshold 209715
        reserved 0.03
        create D #1 from=d rg20 ask 61s → rg20 granted 61s valid 3600 threshold 6
        reserved 0.23
        create E #1 from=e rg30 ask 3x → rg30 granted 3x
        reserved 0.38
        ",
    );
}

#[test]
fn the_tariff_decides_what_the_consumer_leaves_open() {
    check(
        "
        create S1 #1 rg10 ask {} rg20 ask {} rg30 ask {}
            → rg10 granted 10MiB valid 3600 hold 300 threshold 2MiB rg20 granted 300s valid 3600 threshold 30
            rg30 granted 1x
        create S2 #1 from=smf2 rg40 ask {} rg80 ask {} rg90 ask {} → rg40 granted 10MiB rg80 granted 10MiB valid 1339200 rg90 granted 10MiB
        -- zero, and units that the tariff does not count, leave it open too
        create S3 #1 from=smf3 rg10 ask 0 rg20 ask 5MiB rg30 ask 60s
            → rg10 granted 10MiB … rg20 granted 300s … rg30 granted 1x
        ",
    );
}

#[test]
fn a_grant_is_no_larger_than_the_tariffs_largest() {
    check(
        "
        subscriber postpaid
        create A #1 from=a rg10 ask 1GiB → rg10 granted 1GiB …
        create B #1 from=b rg10 ask 1073741825 → rg10 granted 1GiB …
        create C #1 from=c rg40 ask max → rg40 granted 1GiB
        create D #1 from=d rg20 ask 3601s → rg20 granted 3600s …
        create E #1 from=e rg30 ask 101x → rg30 granted 100x
        ",
    );
}

#[test]
fn a_grant_answers_under_the_names_that_were_asked_for() {
    check(
        "
        create A #1 from=a rg10 ask 10MiB up=10MiB down=10MiB → rg10 granted 10MiB up=10MiB down=10MiB …
        create B #1 from=b rg10 ask up=6000 down=4000 → rg10 granted up=6000 down=4000 …
        create C #1 from=c rg10 ask up=5000 → rg10 granted up=5000 …
        create D #1 from=d rg10 ask down=5000 → rg10 granted down=5000 …
        create E #1 from=e rg10 ask 5000 60s → rg10 granted 5000 …
        create F #1 from=f rg20 ask 5000 60s → rg20 granted 60s …
        reserved 0.24
        ",
    );
}

#[test]
fn volume_is_the_total_and_without_it_both_directions() {
    check(
        "
        create S1 #1 rg10 ask {} → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB up=5MiB down=5MiB → rg10 SUCCESS
        balance 9.99
        update S1 #3 rg10 used up=1MiB down=2MiB → rg10 SUCCESS
        balance 9.96
        update S1 #4 rg10 used up=1MiB → rg10 SUCCESS
        balance 9.95
        update S1 #5 rg10 used down=1MiB → rg10 SUCCESS
        balance 9.94
        update S1 #6 rg10 used 60s → rg10 SUCCESS                   -- time is not what internet counts
        balance 9.94
        ",
    );
}

#[test]
fn usage_of_another_kind_is_recorded_beside_the_kind_that_is_charged() {
    check(
        "
        create S1 #1 rg10 ask 10MiB 600s → rg10 granted 10MiB …
        update S1 #2 rg10 used 10MiB QUOTA_EXHAUSTED used 250s OTHER_QUOTA_TYPE ask 10MiB 600s → rg10 granted 10MiB …
        balance 9.90
        release S1 #3 rg10 used 1MiB 20s
        balance 9.89
        cdr S1 → cause 0 charged 0.11 rg10 10485760 QUOTA_EXHAUSTED 250s OTHER_QUOTA_TYPE 1048576 20s
        ",
    );
}

#[test]
fn a_threshold_is_what_remains_and_never_all_of_the_grant() {
    check(
        "
        create S1 #1 rg10 ask 4 → rg10 granted 4 valid 3600 hold 300              -- a fifth of four is none
        update S1 #2 rg10 ask 5 → rg10 granted 5 valid 3600 hold 300 threshold 1
        update S1 #3 rg20 ask 9s → rg20 granted 9s valid 3600
        update S1 #4 rg20 ask 10s → rg20 granted 10s valid 3600 threshold 1
        ",
    );
}

#[test]
fn a_grant_ends_no_later_than_what_it_was_granted_from() {
    check(
        "
        subscriber bundle
        have data-bundle 104857600 octets until 12:30
        create S1 #1 rg90 ask 10MiB → rg90 granted 10MiB valid 1800
        update S1 #2 rg90 ask 120MiB → rg90 granted 120MiB valid 1800
        -- money that expires
        subscriber user
        have bonus 1.00 until 12:10 priority 1
        create S2 #1 rg10 ask 10MiB → rg10 granted 10MiB valid 600 hold 300 threshold 2MiB
        reserved bonus 0.10
        -- never zero, which would disarm the timer
        now 12:09:59
        tick 500ms
        update S2 #2 rg10 ask 10MiB → rg10 granted 10MiB valid 1 hold 300 threshold 2MiB
        tick 500ms
        update S2 #3 rg10 ask 10MiB → rg10 granted 10MiB valid 3600 hold 300 threshold 2MiB
        balance bonus 0.00
        reserved main 0.10
        ",
    );
}

#[test]
fn a_grant_of_a_tiered_tariff_ends_with_the_month() {
    check(
        "
        now 2026-06-30T23:00
        create S1 #1 rg80 ask 1MiB → rg80 granted 1MiB valid 3600
        now 2026-12-31T12:00
        update S1 #2 rg80 ask 1MiB → rg80 granted 1MiB valid 43200
        ",
    );
}

#[test]
fn a_new_version_of_the_plan_rates_from_the_next_grant_on() {
    check(
        "
        create S1 #1 rg10 ask 10MiB rg20 ask 60s → rg10 granted 10MiB … rg20 granted 60s …
        plan 2 rg10 price 0.03 per 1MiB
        -- granted by version 1, rated by version 1
        update S1 #2 rg10 used 1MiB → rg10 SUCCESS
        balance 9.99
        -- the last usage of the old grant, and a grant of the new version
        update S1 #3 rg10 used 1MiB ask 10MiB → rg10 granted 10MiB …
        balance 9.98
        reserved 0.40
        update S1 #4 rg10 used 1MiB → rg10 SUCCESS
        balance 9.95
        -- the grant of the other group still is of version 1, and nothing about it has changed
        release S1 #5 rg10 used 1MiB rg20 used 60s
        balance 9.82
        ",
    );
}

#[test]
fn a_rating_group_that_is_no_longer_managed_says_so_at_the_next_request() {
    check(
        "
        create S1 #1 features=1 rg10 ask 10MiB → rg10 granted 10MiB …
        plan 2 rg10 flat
        update S1 #2 rg10 used 1MiB ask 10MiB → rg10 QUOTA_MANAGEMENT_NOT_APPLICABLE
        balance 9.99
        reserved 0.00
        update S1 #3 rg10 used 1MiB → rg10 QUOTA_MANAGEMENT_NOT_APPLICABLE
        balance 9.99
        plan 3 rg10 metered
        -- understood by consumers that offered the feature only
        update S1 #4 rg10 ask 10MiB → rg10 QUOTA_MANAGEMENT granted 10MiB …
        update S1 #5 rg10 used 1MiB ask 10MiB → rg10 granted 10MiB …
        create S2 #1 from=smf2 rg50 ask {} → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        plan 4 rg50 metered
        update S2 #2 rg50 ask {} → rg50 granted 10MiB
        ",
    );
}
