//! Partial records: when one is closed and the next opened, and that each container is in exactly one of them.

use super::world::World;
use super::{check, play};

#[test]
fn a_limit_of_the_session_closes_the_record_after_its_update() {
    check(
        "
        create S1 #1 block=dnn:internet rg10 ask 10MiB → rg10 granted 10MiB …
        tick 100s
        update S1 #2 rg10 used 1MiB ask 10MiB → rg10 granted 10MiB …
        outbox →
        tick 200s
        update S1 #3 TIME_LIMIT rg10 used 2MiB ask 10MiB → rg10 granted 10MiB …
        outbox → record S1/0
        cdr S1/0 → #1 cause 17 charged 0.03 rg10 1048576 2097152
        record S1/0 → opened 12:00:00 for 300s
        tick 50s
        update S1 #4 VOLUME_LIMIT rg10 used 1MiB ask 10MiB → rg10 granted 10MiB …
        cdr S1/1 → #2 cause 16 charged 0.01 rg10 1048576
        record S1/1 → opened 12:05:00 for 50s
        blocks S1/1 → dnn:internet
        update S1 #5 MAX_NUMBER_OF_CHANGES_IN_CHARGING_CONDITIONS → ok
        cdr S1/2 → #3 cause 19 charged 0.00
        update S1 #6 MANAGEMENT_INTERVENTION rg20 used 60s online → rg20 SUCCESS
        cdr S1/3 → #4 cause 20 charged 0.10 rg20 60s online
        tick 10s
        release S1 #7 rg10 used 1MiB
        outbox → record S1/4
        cdr S1/4 → #5 cause 0 charged 0.01 rg10 1048576
        record S1/4 → opened 12:05:50 for 10s
        cdrs S1 5
        charged S1 0.15
        -- late usage goes on counting
        update S1 #8 rg10 used 1MiB → gone
        outbox → record S1/5
        cdr S1/5 → #6 cause 0 charged 0.01 rg10 1048576
        ",
    );
}

#[test]
fn a_limit_of_a_rating_group_or_in_another_operation_closes_none() {
    check(
        "
        create S1 #1 TIME_LIMIT rg10 ask 10MiB → rg10 granted 10MiB …
        outbox →
        update S1 #3 rg10 used 1MiB TIME_LIMIT → rg10 SUCCESS
        outbox →
        update S1 #4 RAT_CHANGE PLMN_CHANGE USER_LOCATION_CHANGE → ok
        outbox →
        -- overtaken
        update S1 #2 TIME_LIMIT → ok
        outbox →
        release S1 #5 TIME_LIMIT
        cdrs S1 1
        cdr S1 → cause 0 charged 0.01 rg10 1048576 TIME_LIMIT
        ",
    );
}

#[test]
fn the_operator_chooses_further_changes() {
    check(
        "
        rules partial=SERVING_NODE_CHANGE partial=RAT_CHANGE partial=UE_TIMEZONE_CHANGE partial=PLMN_CHANGE
        create S1 #1 → ok
        update S1 #2 SERVING_NODE_CHANGE → ok
        cdr S1/0 → #1 cause 18 charged 0.00
        update S1 #3 RAT_CHANGE → ok
        cdr S1/1 → #2 cause 22 charged 0.00
        update S1 #4 UE_TIMEZONE_CHANGE → ok
        cdr S1/2 → #3 cause 23 charged 0.00
        update S1 #5 PLMN_CHANGE → ok
        cdr S1/3 → #4 cause 24 charged 0.00
        -- a limit comes before them
        update S1 #6 PLMN_CHANGE VOLUME_LIMIT → ok
        cdr S1/4 → #5 cause 16 charged 0.00
        update S1 #7 USER_LOCATION_CHANGE → ok
        cdrs S1 5
        ",
    );
}

#[test]
fn a_copy_closes_no_second_record() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        a: update S1 #2 TIME_LIMIT rg10 used 1MiB #1 → rg10 SUCCESS
        copy a → again rg10 SUCCESS
        copy a marked → again rg10 SUCCESS
        cdrs S1 1
        -- it grew: what is new in it belongs to the record that is open now
        copy a marked rg10 used 2MiB #2 → rg10 SUCCESS
        outbox →
        release S1 #3
        cdr S1/0 → #1 cause 17 charged 0.01 rg10 1048576
        cdr S1/1 → #2 cause 0 charged 0.02 rg10 2097152
        ",
    );
}

#[test]
fn a_record_that_is_open_for_too_long_is_split() {
    check(
        "
        rules record=3600s
        create S1 #1 rg40 ask {} → rg40 granted 10MiB
        due S1 3600s
        tick 1h
        -- the limit is the timer's to find
        update S1 #2 rg40 used 1MiB ask {} → rg40 granted 10MiB
        due S1 0s
        tick 10s
        timer S1 → record S1/0
        due S1 3600s
        tick 3599s
        timer S1 → nothing
        tick 1s
        timer S1 → record S1/1
        release S1 #3
        cdr S1/0 → #1 cause 17 charged 0.00 rg40 1048576
        record S1/0 → opened 12:00:00 for 3610s
        cdr S1/1 → #2 cause 17 charged 0.00
        record S1/1 → opened 13:00:10 for 3600s
        cdr S1/2 → #3 cause 0 charged 0.00
        record S1/2 → opened 14:00:10 for 0s
        ",
    );
}

#[test]
fn a_partial_record_by_the_consumer_gives_the_next_its_full_time() {
    check(
        "
        rules record=3600s
        create S1 #1 → ok
        tick 3599s
        update S1 #2 VOLUME_LIMIT → ok
        tick 1s
        timer S1 → later
        due S1 3599s
        ",
    );
}

#[test]
fn an_operator_may_want_a_record_of_what_there_is() {
    check(
        "
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1MiB → rg10 SUCCESS
        tick 60s
        split S1 → record S1/0
        reserved 0.09
        cdr S1/0 → #1 cause 20 charged 0.01 rg10 1048576
        release S1 #3 rg10 used 1MiB
        cdr S1/1 → #2 cause 0 charged 0.01 rg10 1048576
        split S1 → nothing
        ",
    );
}

#[test]
fn a_release_by_an_abnormal_end_says_so() {
    check(
        "
        create S1 #1 → ok
        release S1 #2 ABNORMAL_RELEASE
        cdr S1 → cause 4 charged 0.00
        ",
    );
}

#[test]
fn late_usage_is_recorded_from_when_it_came() {
    check(
        "
        create S1 #1 rg10 ask 1MiB → rg10 granted 1MiB …
        tick 60s
        release S1 #2
        tick 600s
        update S1 #3 rg10 used 1MiB → gone
        record S1/0 → opened 12:00:00 for 60s
        record S1/1 → opened 12:11:00 for 0s
        cdr S1/1 → cause 0 charged 0.01 rg10 1048576
        ",
    );
}

#[test]
fn a_record_collects_no_more_than_it_may() {
    // A container is 120, with its item 144, a trigger 8 more.
    check(
        "
        rules octets=400
        create S1 #1 rg10 ask 10MiB → rg10 granted 10MiB …
        update S1 #2 rg10 used 1 #1 → rg10 SUCCESS
        collected S1 144
        update S1 #3 rg10 used 2 #2 used 3 #3 → rg10 SUCCESS
        collected S1 144
        outbox → record S1/0
        cdr S1/0 → #1 cause 16 charged 0.01 rg10 1 2
        update S1 #4 RAT_CHANGE → ok
        collected S1 152
        -- one request may fill several
        update S1 #5 rg10 used 4 #4 used 5 #5 used 6 #6 used 7 #7 used 8 #8 rg20 used 9s #9 offline → rg10 SUCCESS rg20 SUCCESS
        outbox → record S1/1 record S1/2
        cdr S1/1 → #2 cause 16 charged 0.00 rg10 3 4
        cdr S1/2 → #3 cause 16 charged 0.00 rg10 5 6 7
        collected S1 288
        release S1 #6 rg10 used 1MiB #10
        outbox → record S1/3 record S1/4
        cdr S1/3 → #4 cause 16 charged 0.00 rg10 8 rg20 9s offline
        cdr S1/4 → #5 cause 0 charged 0.01 rg10 1048576
        charged S1 0.02
        ",
    );
}

#[test]
fn a_record_that_is_exactly_full_is_not_cut() {
    check(
        "
        rules octets=384
        create S1 #1 rg50 ask {} → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        update S1 #2 rg50 used 1 #1 used 2 #2 used 3 #3 → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        collected S1 384
        outbox →
        update S1 #3 TIME_LIMIT → ok
        -- the record that closes is the one after the cut
        outbox → record S1/0 record S1/1
        cdr S1/0 → #1 cause 16 charged 0.00 rg50 1 2 3
        cdr S1/1 → #2 cause 17 charged 0.00
        collected S1 0
        ",
    );
}

#[test]
fn blocks_that_stand_in_each_record_leave_less_room() {
    let block = format!("block=info:{}", "x".repeat(200));
    let table = "
        rules octets=400
        create S1 #1 BLOCK → ok
        update S1 #2 rg50 used 1 #1 → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        update S1 #3 rg50 used 1 #2 → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        outbox → record S1/0
        -- a block that changes takes the place of the one before
        update S1 #4 block=info:small rg50 used 1 #3 → rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        outbox →
        blocks S1/0 → "
        .to_owned()
        + &block["block=".len()..];
    play(World::demo(), &table.replace("BLOCK", &block));
}

#[test]
fn what_blocks_report_adds_up_in_each_record() {
    let table = "
        create S1 #1 block=FLOW:1 block=roamingQBCInformation:v1 → ok
        update S1 #2 block=FLOW:2 block=FLOW:3 rg10 used 1MiB → rg10 SUCCESS
        -- sent again, counted once
        update S1 #2 block=FLOW:2 block=FLOW:3 rg10 used 1MiB → again rg10 SUCCESS
        update S1 #3 TIME_LIMIT block=FLOW:4 → ok
        blocks S1/0 → roamingQBCInformation:v1 FLOW:1 FLOW:2 FLOW:3 FLOW:4
        update S1 #4 block=FLOW:4 → ok
        release S1 #5 block=roamingQBCInformation:v2
        blocks S1/1 → roamingQBCInformation:v2 FLOW:4
        -- each takes room as a container does
        rules octets=400
        create S2 #1 → ok
        update S2 #2 block=FLOW:A block=FLOW:B block=FLOW:C → ok
        outbox → record S2/0 record S2/1
        release S2 #3
        blocks S2/0 → FLOW:A
        blocks S2/1 → FLOW:B
        blocks S2/2 → FLOW:C
        ";
    let long = |letter: &str| format!("{letter}{}", "x".repeat(200));
    let table = ["A", "B", "C"].iter().fold(table.to_owned(), |table, letter| {
        table.replace(&format!("FLOW:{letter}"), &format!("FLOW:{}", long(letter)))
    });
    check(&table.replace("FLOW", "roamingQBCInformation/multipleQFIcontainer"));
}

#[test]
fn an_event_may_fill_several_records() {
    check(
        "
        rules octets=300
        create E #1 PEC rg30 used 1x #1 used 1x #2 used 1x #3 → rg30 SUCCESS
        outbox → record E/0 record E/1
        cdr E/0 → #1 cause 16 charged 0.00 rg30 1x 1x
        cdr E/1 → #2 cause 0 charged 0.15 rg30 1x
        ",
    );
}

#[test]
fn a_superseded_session_is_recorded_before_the_new_one() {
    check(
        "
        create S1 #1 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        update S1 #2 TIME_LIMIT rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        create S2 #1 pdu=5 at 13:00 rg10 ask 1MiB → rg10 granted 1MiB …
        outbox → record S1/1
        cdr S1/1 → #2 cause 4 lost charged 0.00
        ",
    );
}
