//! What usage costs: blocks, tiers, times of day, allowances, and the order in which balances pay.

use super::check;

#[test]
fn started_blocks_count_once_however_usage_is_split() {
    check(
        "
        create S1 #1 rg10 ask 10MiB rg20 ask 300s rg30 ask 10x → rg10 granted 10MiB … rg20 granted 300s … rg30 granted 10x
        update S1 #2 rg10 used 1 → rg10 SUCCESS
        balance 9.99
        update S1 #3 rg10 used 400000 #1 used 400000 #2 → rg10 SUCCESS
        balance 9.99
        update S1 #4 rg10 used 248575 → rg10 SUCCESS                   -- to the last octet of the block
        balance 9.99
        update S1 #5 rg10 used 1 → rg10 SUCCESS
        balance 9.98
        update S1 #6 rg20 used 59s → rg20 SUCCESS
        balance 9.88
        update S1 #7 rg20 used 1s → rg20 SUCCESS
        balance 9.88
        update S1 #8 rg20 used 1s → rg20 SUCCESS
        balance 9.78
        update S1 #9 rg30 used 1x used 2x → rg30 SUCCESS
        balance 9.63
        charged S1 0.37
        -- another session starts blocks of its own
        create S2 #1 from=smf2 rg10 used 1 ask 1 → rg10 granted 1 …
        balance 9.62
        reserved 0.73
        ",
    );
}

#[test]
fn a_tier_ends_at_the_very_octet() {
    check(
        "
        create S1 #1 rg80 ask 200MiB → rg80 granted 200MiB …
        reserved 1.20
        update S1 #2 rg80 used 104857599 → rg80 SUCCESS
        balance 9.00
        update S1 #3 rg80 used 1 → rg80 SUCCESS
        balance 9.00
        update S1 #4 rg80 used 1 → rg80 SUCCESS
        balance 8.998
        counted rg80 104857601
        release S1 #5
        -- the same in one container
        subscriber mother
        create S2 #1 rg80 ask 200MiB → rg80 granted 200MiB …
        release S2 #2 rg80 used 104857601
        balance 8.998
        ",
    );
}

#[test]
fn tiers_count_the_account_over_all_sessions_of_the_month() {
    check(
        "
        subscriber mother
        create M #1 rg80 used 99MiB online → rg80 SUCCESS
        balance 9.01
        subscriber father
        create F #1 rg80 used 3MiB online → rg80 SUCCESS
        balance 8.996
        counted rg80 106954752
        -- a new month starts with the first tier again
        now 2026-07-01T00:00
        create N #1 from=smf2 rg80 used 1MiB online → rg80 SUCCESS
        balance 8.986
        -- usage of the month before counts there, whenever it is reported
        update N #2 rg80 used 1MiB online closed 2026-06-30T23:59 → rg80 SUCCESS
        balance 8.984
        counted rg80 108003328 1048576
        ",
    );
}

#[test]
fn a_grant_reserves_each_tier_at_its_own_price() {
    check(
        "
        have main 1.01
        create S1 #1 rg80 ask 150MiB → rg80 granted 105MiB … final terminate
        reserved 1.01
        update S1 #2 rg80 used 50MiB ask 150MiB → rg80 granted 55MiB … final terminate
        reserved 0.51
        release S1 #3 rg80 used 55MiB
        balance 0.00
        have main 0.002
        create S2 #1 from=smf2 rg80 ask 2MiB → rg80 granted 1MiB … final terminate
        ",
    );
}

#[test]
fn containers_are_rated_in_the_order_of_their_numbers() {
    check(
        "
        create S1 #1 rg80 ask 200MiB → rg80 granted 200MiB …
        update S1 #2 rg80 used 30MiB #2 used 80MiB #1 → rg80 SUCCESS
        moves → debit main 0.80 debit main 0.20 debit main 0.02
        ",
    );
}

#[test]
fn the_price_of_a_container_is_that_of_its_time() {
    check(
        "
        now 2026-01-15T07:30
        create S1 #1 rg70 ask 10MiB → rg70 granted 10MiB switch 08:00
        reserved 0.20                                                     -- at the dearer price
        now 2026-01-15T08:30
        update S1 #2 rg70 used 2MiB #1 TARIFF_TIME_CHANGE closed 08:00 used 3MiB #2 from 08:00 to 08:20 ask 10MiB
            → rg70 granted 10MiB switch 20:00
        balance 9.93
        reserved 0.20
        -- by the consumer's clock, to the second
        update S1 #3 rg70 used 1MiB closed 07:59:59 → rg70 SUCCESS
        balance 9.925
        update S1 #4 rg70 used 1MiB closed 08:00 → rg70 SUCCESS
        balance 9.905
        update S1 #5 at 20:00 rg70 used 1MiB → rg70 SUCCESS
        balance 9.90
        update S1 #6 at 20:00 rg70 used 1MiB from 19:00 to 20:00 closed 20:05 → rg70 SUCCESS
        balance 9.88
        ",
    );
}

#[test]
fn a_container_over_a_change_of_price_is_split_in_proportion_to_time() {
    check(
        "
        now 2026-01-15T09:00
        create S1 #1 rg70 ask 10MiB → rg70 granted 10MiB switch 20:00
        update S1 #2 rg70 used 4MiB from 07:30 to 08:30 → rg70 SUCCESS
        balance 9.95
        -- a quarter at night: the octet that does not divide is of the day
        update S1 #3 rg70 used 4194305 from 07:45 to 08:45 → rg70 SUCCESS
        balance 9.865
        -- two nights and a day
        update S1 #4 rg70 used 24MiB from 2026-01-13T20:00 to 2026-01-14T20:00 → rg70 SUCCESS
        balance 9.565
        ",
    );
}

#[test]
fn the_nights_in_which_the_clocks_change_are_as_long_as_they_are() {
    check(
        "
        now 2026-03-28T21:00
        create S1 #1 rg70 ask 10MiB → rg70 granted 10MiB switch 08:00
        now 2026-03-29T20:30
        -- eleven hours of night and twelve of day
        update S1 #2 rg70 used 23MiB from 2026-03-28T20:00 to 2026-03-29T20:00 → rg70 SUCCESS
        balance 9.705
        now 2026-10-25T20:30
        -- thirteen hours of night and twelve of day
        update S1 #3 rg70 used 25MiB from 2026-10-24T20:00 to 2026-10-25T20:00 → rg70 SUCCESS
        balance 9.40
        ",
    );
}

#[test]
fn a_change_of_price_is_announced_when_the_grant_may_last_that_long() {
    check(
        "
        now 2026-01-15T07:30
        plan 2 rg70 validity 600
        create S1 #1 rg70 ask 10MiB → rg70 granted 10MiB valid 600
        reserved 0.05
        now 2026-01-15T07:49:59
        update S1 #2 rg70 ask 10MiB → rg70 granted 10MiB valid 600
        now 2026-01-15T07:50
        update S1 #3 rg70 ask 10MiB → rg70 granted 10MiB valid 600
        now 2026-01-15T07:50:01
        update S1 #4 rg70 ask 10MiB → rg70 granted 10MiB valid 600 switch 08:00
        reserved 0.20
        now 2026-01-15T08:00
        update S1 #5 rg70 ask 10MiB → rg70 granted 10MiB valid 600
        reserved 0.20
        ",
    );
}

#[test]
fn an_allowance_pays_before_money_to_the_very_octet() {
    check(
        "
        subscriber bundle
        create S1 #1 rg90 ask {} → rg90 granted 10MiB
        moves → reserve data-bundle 10485760
        reserved 0.00
        reserved data-bundle 10485760
        update S1 #2 rg90 used 4MiB ask 1MiB → rg90 granted 1MiB
        balance data-bundle 1069547520
        reserved data-bundle 1048576
        balance 10.00
        release S1 #3
        have data-bundle 5242880 octets
        create S2 #1 from=smf2 rg90 ask 10MiB → rg90 granted 10MiB
        reserved data-bundle 5242880
        reserved 0.05
        update S2 #2 rg90 used 5MiB → rg90 SUCCESS
        balance data-bundle 0
        balance 10.00
        update S2 #3 rg90 used 1 ask 1 → rg90 granted 1
        balance 9.99
        charged S2 0.01
        -- other rating groups have no claim on it
        have data-bundle 5242880 octets
        create S3 #1 from=smf3 rg10 ask 1MiB → rg10 granted 1MiB …
        reserved data-bundle 0
        cdrs S1 1
        cdr S1 → cause 0 charged 0.00 rg90 4194304
        ",
    );
}

#[test]
fn the_last_of_allowance_and_money_is_said_to_be_the_last() {
    check(
        "
        subscriber bundle
        have main 0.00
        have data-bundle 2097152 octets
        create S1 #1 rg90 ask 1MiB → rg90 granted 1MiB
        update S1 #2 rg90 ask 1048577 → rg90 granted 1048577 final terminate    -- less than a block is left
        update S1 #3 rg90 ask 3MiB → rg90 granted 2MiB final terminate
        update S1 #4 rg90 used 2097151 ask 3MiB → rg90 granted 1 final terminate
        update S1 #5 rg90 used 1 ask 3MiB → rg90 QUOTA_LIMIT_REACHED
        balance data-bundle 0
        have main 0.01
        update S1 #6 rg90 ask 3MiB → rg90 granted 1MiB final terminate
        ",
    );
}

#[test]
fn usage_beyond_the_grant_takes_what_is_free_of_the_allowance_and_never_what_others_hold() {
    check(
        "
        subscriber bundle
        have data-bundle 10485760 octets
        create A #1 rg90 ask 4MiB → rg90 granted 4MiB
        create B #1 from=b rg90 ask 4MiB → rg90 granted 4MiB
        -- 4 held, 2 free, 1 for money
        update A #2 rg90 used 7MiB → rg90 SUCCESS
        balance data-bundle 4194304
        reserved data-bundle 4194304
        balance 9.99
        release B #2 rg90 used 4MiB
        balance data-bundle 0
        balance 9.99
        ",
    );
}

#[test]
fn allowances_pay_by_priority_and_then_by_the_end_of_their_life() {
    check(
        "
        plan 2 rg90 allowances plain weekend first
        have plain 1000 octets
        have weekend 1000 octets until 18:00
        create S1 #1 rg90 used 600 online → rg90 SUCCESS
        balance weekend 400
        balance plain 1000
        have first 1000 octets priority 1
        update S1 #2 rg90 used 1200 online → rg90 SUCCESS
        balance first 0
        balance weekend 200
        update S1 #3 rg90 used 1201 online → rg90 SUCCESS
        balance weekend 0
        balance plain 0
        balance 9.99
        ",
    );
}

#[test]
fn what_has_expired_pays_for_nothing_but_what_was_reserved_before() {
    check(
        "
        plan 2 rg90 allowances weekend
        have weekend 2000 octets until 18:00
        create S1 #1 rg90 ask 500 → rg90 granted 500 valid 21600
        now 17:59:59
        create S2 #1 from=smf2 rg90 used 100 online → rg90 SUCCESS
        balance weekend 1900
        now 18:00
        update S1 #2 rg90 used 200 → rg90 SUCCESS
        moves → expire weekend 1400 debit weekend 200
        balance weekend 300
        -- the rest comes back to nothing
        update S1 #3 rg90 used 0 ask 500 → rg90 granted 500
        moves → release weekend 300 expire weekend 300 reserve main 0.01
        balance weekend 0
        reserved 0.01
        ",
    );
}

#[test]
fn money_pays_by_priority_and_only_main_goes_below_zero() {
    check(
        "
        have main 0.02
        have bonus 0.03 priority 1
        create S1 #1 rg10 ask {} → rg10 granted 5MiB … final terminate
        reserved 0.02
        reserved bonus 0.03
        update S1 #2 rg10 used 4MiB → rg10 SUCCESS
        balance bonus 0.00
        balance 0.01
        reserved 0.01
        update S1 #3 rg10 used 4MiB ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        balance bonus 0.00
        balance -0.03
        ",
    );
}

#[test]
fn a_credit_adds_to_a_balance_of_its_own_unit() {
    check(
        "
        credit main 5.00
        balance 15.00
        credit bonus 2.50 until 18:00
        balance bonus 2.50
        credit minutes 600 seconds
        balance minutes 600
        available 17.50
        credit minutes 5.00 money → refused UnitDiffers(Seconds)
        credit main 9223372036854.775807 → refused TooMuch
        balance 15.00
        -- a credit on what has expired neither brings it back nor expires with it
        now 18:00
        credit bonus 1.00
        balance bonus 1.00
        available 16.00
        ",
    );
}
