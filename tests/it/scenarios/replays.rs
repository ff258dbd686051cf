//! Repeated, grown, late and lost requests, for each way in which consumers number theirs.

use super::check;

#[test]
fn a_copy_of_an_update_gets_the_same_answer_and_changes_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        u: update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB valid 3600 hold 300 threshold 1MiB
        tick 60s
        copy u → again rg10 granted 5MiB valid 3600 hold 300 threshold 1MiB
        copy u marked → again rg10 granted 5MiB …
        copy u later → again rg10 granted 5MiB …
        balance 9.99
        reserved 0.05
        update S1 #3 rg10 used 1MiB ask 7MiB → rg10 granted 7MiB …
        copy u → again rg10 granted 5MiB …
        reserved 0.07
        release S1 #4
        cdr S1 → cause 0 charged 0.02 rg10 1048576 1048576
        ",
    );
}

#[test]
fn a_marked_request_that_never_arrived_is_processed_as_new() {
    check(
        "
        create S1 #1 marked rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 marked rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        balance 9.99
        release S1 #3 marked rg10 used 1MiB → ok
        balance 9.98
        ",
    );
}

#[test]
fn a_number_that_was_used_for_something_else_is_refused() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        update S1 #2 rg10 used 2MiB ask 5MiB → refused NumberReused
        balance 9.99
        reserved 0.05
        release S1 #3 rg10 used 1MiB → ok
        release S1 #3 rg10 used 2MiB → refused NumberReused
        balance 9.98
        ",
    );
}

#[test]
fn a_marked_copy_that_grew_is_charged_for_what_is_new_in_it() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        u: update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        copy u marked rg10 used 3MiB #7 → rg10 granted 5MiB …
        balance 9.96
        reserved 0.05
        copy u marked rg10 used 3MiB #7 → again rg10 granted 5MiB …
        copy u grown rg10 used 3MiB #7 → again rg10 granted 5MiB …
        copy u → again rg10 granted 5MiB …
        balance 9.96
        release S1 #3
        cdr S1 → cause 0 charged 0.04 rg10 1048576 3145728
        ",
    );
}

#[test]
fn a_large_request_is_recognised_container_by_container() {
    let containers: String = (0..40).map(|number| format!(" used 1MiB #{number}")).collect();
    check(&format!(
        "
        create S1 #1 rg10 ask 40MiB → rg10 granted 40MiB …
        u: update S1 #2 rg10{containers} ask 1MiB → rg10 granted 1MiB …
        balance 9.60
        copy u marked rg10 used 2MiB #40 → rg10 granted 1MiB …
        balance 9.58
        "
    ));
}

#[test]
fn a_request_whose_answer_is_forgotten_is_not_charged_again() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        u: update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        update S1 #3 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        update S1 #4 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        copy u → again rg10 granted 5MiB …
        update S1 #5 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        copy u → refused NumberForgotten
        copy u marked → refused NumberForgotten
        balance 9.96
        ",
    );
}

#[test]
fn a_request_overtaken_by_newer_ones_is_charged_and_granted_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB ask 10MiB → rg10 granted 10MiB …
        update S1 #9 rg10 used 1MiB ask 8MiB → rg10 granted 8MiB …
        l: update S1 #8 rg10 used 2MiB ask 1MiB → rg10 SUCCESS
        balance 9.96
        reserved 0.08
        grant S1 rg10 → 8388608 used 0
        copy l → again rg10 SUCCESS
        balance 9.96
        -- without usage it is remembered all the same
        m: update S1 #7 rg10 ask 1MiB → rg10 SUCCESS
        copy m → again rg10 SUCCESS
        -- quota that is given back does not make earlier usage free
        update S1 #10 rg10 used 0 QHT → rg10 SUCCESS
        update S1 #6 rg10 used 1MiB → rg10 SUCCESS
        balance 9.95
        release S1 #11
        cdr S1 → cause 0 charged 0.05 rg10 1048576 1048576 2097152 0 QHT 1048576
        ",
    );
}

#[test]
fn a_consumer_with_one_number_for_everything_is_told_apart_by_content_and_time() {
    check(
        "
        create S1 #0 pdu=1 → ok
        tick 1s
        u: update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        copy u → again rg10 granted 10MiB …
        balance 9.99
        -- the very same report a second later is another megabyte
        tick 1s
        v: update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        balance 9.98
        copy u → again rg10 granted 10MiB …
        copy v → again rg10 granted 10MiB …
        tick 1s
        r: release S1 #0 rg10 used 1MiB → ok
        balance 9.97
        copy r → again ok
        copy r later → again ok
        copy v → again rg10 granted 10MiB …
        tick 1s
        update S1 #0 rg10 used 1MiB → gone
        balance 9.96
        cdr S1 → cause 0 charged 0.03 rg10 1048576 1048576 1048576
        cdr S1/1 → cause 0 charged 0.01 rg10 1048576
        ",
    );
}

#[test]
fn a_consumer_with_one_number_is_not_charged_again_for_what_is_forgotten() {
    check(
        "
        create S1 #0 rg10 ask {} → rg10 granted 10MiB …
        tick 1s
        u: update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        tick 1s
        update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        tick 1s
        update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        tick 1s
        update S1 #0 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        copy u → refused NumberForgotten
        balance 9.96
        ",
    );
}

#[test]
fn a_consumer_that_counts_its_updates_anew_is_recognised_by_its_numbers() {
    check(
        "
        create S1 #1 rg10 ask {} → rg10 granted 10MiB …
        tick 1s
        update S1 #1 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        tick 1s
        u: update S1 #2 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        tick 1s
        copy u later → again rg10 granted 10MiB …
        update S1 #3 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        balance 9.97
        ",
    );
}

#[test]
fn containers_merged_into_the_next_request_are_charged_once() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB #1 ask 10MiB → rg10 granted 10MiB …
        -- its answer was lost: the same container with the next one, under a new number
        update S1 #3 rg10 used 1MiB #1 used 2MiB #2 ask 10MiB → rg10 granted 10MiB …
        balance 9.97
        -- a request that never arrived, merged into the next
        update S1 #5 rg10 used 3MiB #3 used 4MiB #4 ask 10MiB → rg10 granted 10MiB …
        balance 9.90
        release S1 #6 rg10 used 4MiB #4 used 1MiB #5
        balance 9.89
        cdr S1 → cause 0 charged 0.11 rg10 1048576 2097152 3145728 4194304 1048576
        ",
    );
}

#[test]
fn a_request_that_comes_after_the_one_it_was_merged_into_is_charged_for_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        -- #2 is on its way when its containers go out once more
        release S1 #3 rg10 used 1MiB #1 closed 12:00 used 2MiB #2 closed 12:01
        balance 9.97
        update S1 #2 rg10 used 1MiB #1 closed 12:00 used 2MiB #2 closed 12:01 ask 10MiB → again gone
        balance 9.97
        create S2 #1 from=smf2 rg10 ask 10MiB → rg10 granted 10MiB …
        update S2 #3 rg10 used 1MiB #1 closed 12:00 ask 10MiB → rg10 granted 10MiB …
        update S2 #2 rg10 used 1MiB #1 closed 12:00 ask 10MiB → rg10 SUCCESS
        balance 9.96
        ",
    );
}

#[test]
fn equal_reports_are_both_charged_where_container_numbers_say_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB #0 ask 10MiB → rg10 granted 10MiB …
        update S1 #3 rg10 used 1MiB #0 ask 10MiB → rg10 granted 10MiB …
        balance 9.98
        -- numbered from 1 in each request
        create S2 #1 from=smf2 rg10 ask 10MiB → rg10 granted 10MiB …
        update S2 #2 rg10 used 1MiB #1 used 1MiB #2 → rg10 SUCCESS
        update S2 #3 rg10 used 1MiB #1 used 1MiB #2 → rg10 SUCCESS
        balance 9.94
        ",
    );
}

#[test]
fn a_repeated_release_is_answered_as_the_first_and_changes_nothing() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        r: release S1 #3 rg10 used 1MiB → ok
        copy r → again ok
        copy r marked → again ok
        copy r later → again ok
        balance 9.98
        cdrs S1 1
        ",
    );
}

#[test]
fn a_release_is_recognised_however_much_comes_late() {
    check(
        "
        create S1 #0 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 1s
        u: update S1 #0 rg10 used 1MiB → rg10 SUCCESS
        r: release S1 #0 rg10 used 1MiB → ok
        tick 1s
        update S1 #0 rg10 used 1MiB → gone
        tick 1s
        update S1 #0 rg10 used 1MiB → gone
        tick 1s
        update S1 #0 rg10 used 1MiB → gone
        tick 1s
        update S1 #0 rg10 used 1MiB → gone
        balance 9.94
        copy r → again ok
        balance 9.94
        ",
    );
}

#[test]
fn a_marked_release_that_grew_is_charged_for_what_is_new_in_it() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        r: release S1 #2 rg10 used 1MiB → ok
        copy r marked rg10 used 2MiB #1
        outbox → record S1/1
        balance 9.97
        cdr S1/1 → cause 0 charged 0.02 rg10 2097152
        copy r marked rg10 used 2MiB #1 → again ok
        balance 9.97
        ",
    );
}

#[test]
fn usage_after_the_release_is_charged_in_a_record_of_its_own() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        u: update S1 #2 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        release S1 #4 rg10 used 1MiB → ok
        tick 60s
        l: update S1 #3 rg10 used 2MiB ask 5MiB → gone
        outbox → record S1/1
        balance 9.96
        reserved 0.00
        copy l → again gone
        copy u → again rg10 granted 5MiB …
        -- nothing reported, nothing to record
        update S1 #5 rg10 ask 5MiB → again gone
        release S1 #6 → again gone
        cdrs S1 2
        cdr S1 → cause 0 charged 0.02 rg10 1048576 1048576
        cdr S1/1 → cause 0 charged 0.02 rg10 2097152
        release S1 #7 rg10 used 1MiB → gone
        cdr S1/2 → cause 0 charged 0.01 rg10 1048576
        ",
    );
}

#[test]
fn a_copy_of_a_create_gets_the_session_that_the_first_one_opened() {
    check(
        "
        c: create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        copy c → again rg10 granted 10MiB …
        copy c marked → again rg10 granted 10MiB …
        reserved 0.10
        update S1 #2 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        update S1 #3 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        update S1 #4 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        update S1 #5 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        update S1 #6 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        copy c → again rg10 granted 10MiB …
        release S1 #7
        copy c → again rg10 granted 10MiB …
        balance 9.95
        reserved 0.00
        ",
    );
}

#[test]
fn a_create_sent_again_for_an_unused_pdu_session_is_a_copy() {
    check(
        "
        create S1 #1 pdu=5 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 5s
        create S2 #1 pdu=5 rg10 ask 10MiB → S1 again rg10 granted 10MiB …
        create S2 #1 marked pdu=5 rg10 ask 10MiB → S1 again rg10 granted 10MiB …
        reserved 0.10
        state S1 active
        -- what asks for something else is no copy: the consumer has started again
        create S3 #1 pdu=5 rg20 ask 60s → rg20 granted 60s …
        state S1 closed Superseded
        reserved 0.10
        -- nor is what has another number
        tick 5s
        create S4 #2 pdu=5 rg20 ask 60s → rg20 granted 60s …
        state S3 closed Superseded
        cdr S3 → cause 4 lost charged 0.00
        -- and a mark makes nothing a copy of what said something else: its own first copy never arrived
        tick 5s
        create S5 #2 marked pdu=5 rg20 ask 90s → rg20 granted 90s …
        state S4 closed Superseded
        ",
    );
}

#[test]
fn an_idempotency_key_makes_a_create_a_copy_whatever_its_time() {
    check(
        "
        create S1 #1 key=7 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 30s
        create S2 #1 key=7 rg10 ask 10MiB → S1 again rg10 granted 10MiB …
        create S2 #1 key=7 rg10 ask 11MiB → refused IdempotencyKeyReused
        create S2 #1 key=8 rg10 ask 10MiB → rg10 granted 10MiB …
        reserved 0.20
        e: create E #1 key=9 IEC rg30 ask 1x → rg30 granted 1x
        copy e later → again rg30 granted 1x
        balance 9.95
        ",
    );
}

#[test]
fn an_idempotency_key_makes_an_update_a_copy_whatever_its_time() {
    check(
        "
        create S1 #0 rg10 ask 10MiB → rg10 granted 10MiB …
        tick 1s
        u: update S1 #0 key=1 rg10 used 1MiB ask 5MiB → rg10 granted 5MiB …
        copy u later → again rg10 granted 5MiB …
        update S1 #0 key=1 rg10 used 2MiB ask 5MiB → refused IdempotencyKeyReused
        copy u key=2 later → rg10 granted 5MiB …
        balance 9.98
        r: release S1 #0 key=3 rg10 used 1MiB → ok
        copy r later → again ok
        balance 9.97
        ",
    );
}
