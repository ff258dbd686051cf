//! The end of the money: the last grant, what is said with it, and what comes after a top-up.

use super::check;

#[test]
fn the_last_affordable_block_is_granted_whole_and_said_to_be_the_last() {
    check(
        "
        subscriber low
        create S1 #1 rg10 ask {} → rg10 granted 5MiB valid 3600 hold 300 final terminate
        available 0.00
        update S1 #2 rg10 used 5MiB ask {} → rg10 QUOTA_LIMIT_REACHED
        balance 0.00
        reserved 0.00
        ",
    );
}

#[test]
fn the_indication_stands_exactly_where_not_one_more_block_could_be_paid() {
    check(
        "
        subscriber low
        create A #1 rg10 ask 4MiB → rg10 granted 4MiB valid 3600 hold 300 threshold 838860
        update A #2 rg10 ask 4194305 → rg10 granted 4194305 valid 3600 hold 300 final terminate
        update A #3 rg10 ask 5242879 → rg10 granted 5242879 valid 3600 hold 300 final terminate
        update A #4 rg10 ask 5MiB → rg10 granted 5MiB valid 3600 hold 300 final terminate
        update A #5 rg10 ask 5242881 → rg10 granted 5MiB valid 3600 hold 300 final terminate
        update A #6 rg10 ask 1 → rg10 granted 1 valid 3600 hold 300
        -- one block left, and none after it
        update A #7 rg10 used 1 ask 4MiB → rg10 granted 4MiB valid 3600 hold 300 final terminate
        reserved 0.04
        ",
    );
}

#[test]
fn exactly_enough_is_enough_and_a_millionth_less_is_not() {
    check(
        "
        have main 0.10
        create A #1 rg20 ask 60s → rg20 granted 60s valid 3600 final terminate
        release A #2
        have main 0.099999
        create B #1 from=b rg20 ask 60s → rg20 QUOTA_LIMIT_REACHED
        have main 0.100001
        update B #2 rg20 ask 61s → rg20 granted 60s valid 3600 final terminate
        have main 0.20
        update B #3 rg20 ask 60s → rg20 granted 60s valid 3600 threshold 6
        update B #4 rg20 ask 61s → rg20 granted 61s valid 3600 final terminate
        ",
    );
}

#[test]
fn a_started_block_that_is_paid_may_be_used_to_its_end() {
    check(
        "
        have main 0.01
        create S1 #1 rg10 ask 1000000 → rg10 granted 1000000 … final terminate
        update S1 #2 rg10 used 1000000 ask 1MiB → rg10 granted 48576 … final terminate
        balance 0.00
        reserved 0.00
        update S1 #3 rg10 used 48576 ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        balance 0.00
        ",
    );
}

#[test]
fn a_redirected_subscriber_is_redirected_with_the_last_grant_and_without_one() {
    check(
        "
        subscriber redirect
        create S1 #1 rg10 ask {} → rg10 granted 5MiB valid 3600 hold 300 final redirect http://topup.example.com/
        update S1 #2 rg10 used 5MiB ask {} → rg10 QUOTA_LIMIT_REACHED final redirect http://topup.example.com/
        credit main 1.00
        update S1 #3 rg10 ask {} → rg10 granted 10MiB valid 3600 hold 300 threshold 2MiB
        ",
    );
}

#[test]
fn restricted_access_is_said_with_the_last_grant_and_without_one() {
    check(
        "
        subscriber low
        plan 2 rg10 restricts walled-garden
        create S1 #1 rg10 ask {} → rg10 granted 5MiB … final restrict walled-garden
        update S1 #2 rg10 used 5MiB ask {} → rg10 QUOTA_LIMIT_REACHED final restrict walled-garden
        ",
    );
}

#[test]
fn a_credit_limit_is_spent_to_its_end_and_no_further() {
    check(
        "
        subscriber postpaid
        create S1 #1 rg20 ask 3600s → rg20 granted 3600s …
        available 44.00
        update S1 #2 rg20 used 3600s ask 60s → rg20 granted 60s …
        balance -6.00
        reserved 0.10
        release S1 #3
        have main -49.95 limit 50.00
        create S2 #1 from=smf2 rg20 ask 60s → rg20 QUOTA_LIMIT_REACHED
        create S3 #1 from=smf3 rg10 ask {} → rg10 granted 5MiB … final terminate
        ",
    );
}

#[test]
fn usage_beyond_the_reservation_is_debited_even_below_zero() {
    check(
        "
        subscriber low
        create S1 #1 rg10 ask 1MiB → rg10 granted 1MiB …
        update S1 #2 rg10 used 7MiB ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        balance -0.02
        available -0.02
        reserved 0.00
        credit main 0.02
        update S1 #3 rg10 ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        credit main 0.01
        update S1 #4 rg10 ask 1MiB → rg10 granted 1MiB … final terminate
        ",
    );
}

#[test]
fn over_use_of_one_session_leaves_the_reservations_of_the_others() {
    check(
        "
        subscriber mother
        have main 0.10
        create M #1 rg10 ask 5MiB → rg10 granted 5MiB …
        subscriber father
        create F #1 rg10 ask 5MiB → rg10 granted 5MiB … final terminate
        update F #2 rg10 used 8MiB ask 1MiB → rg10 QUOTA_LIMIT_REACHED
        balance 0.02
        reserved 0.05
        available -0.03
        subscriber mother
        release M #2 rg10 used 5MiB
        balance -0.03
        reserved 0.00
        ",
    );
}

#[test]
fn a_request_is_granted_group_by_group_from_what_is_left() {
    check(
        "
        subscriber low
        create S1 #1 rg10 ask 3MiB rg90 ask 3MiB rg30 ask 1x
            → rg10 granted 3MiB … rg90 granted 2MiB final terminate rg30 QUOTA_LIMIT_REACHED
        available 0.00
        -- all usage is debited before the first grant
        update S1 #2 rg10 ask 3MiB rg90 used 2MiB → rg10 granted 3MiB … final terminate rg90 SUCCESS
        balance 0.03
        ",
    );
}

#[test]
fn many_sessions_never_hold_more_than_there_is() {
    let mut table = String::from("have main 1.00\n");
    for session in 0..100 {
        let answer = match session {
            0..9 => "rg10 granted 10MiB …",
            9 => "rg10 granted 10MiB … final terminate",
            _ => "rg10 QUOTA_LIMIT_REACHED",
        };
        table += &format!("create S{session} #1 from=smf{session} rg10 ask 10MiB → {answer}\n");
    }
    table += "reserved 1.00\navailable 0.00";
    check(&table);
}
