//! One-time events (IEC, PEC), and events with reservation (ECUR).

use super::check;

#[test]
fn an_immediate_event_is_debited_once_and_reserves_nothing() {
    check(
        "
        create E #1 IEC block=sMSChargingInformation rg30 ask 1x → rg30 granted 1x
        moves → debit main 0.05
        balance 9.95
        reserved 0.00
        outbox → record E/0
        state E closed Event
        cdrs E 1
        cdr E → cause 0 charged 0.05
        update E #2 rg30 used 1x → refused UnknownSession
        release E #2 → refused UnknownSession
        balance 9.95
        ",
    );
}

#[test]
fn an_immediate_event_leaves_the_amount_to_the_tariff_when_it_says_nothing() {
    check(
        "
        create E #1 IEC rg30 ask {} → rg30 granted 1x
        balance 9.95
        create F #1 IEC from=f rg30 → rg30 granted 1x
        balance 9.90
        create G #1 IEC from=g rg30 ask 3x → rg30 granted 3x
        balance 9.75
        create H #1 event from=h rg30 ask 1x → rg30 granted 1x          -- of no type, but it asks
        balance 9.70
        ",
    );
}

#[test]
fn an_event_in_a_pdu_session_leaves_the_session_of_it_open() {
    check(
        "
        create S #1 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        tick 1s
        create E #1 IEC pdu=5 rg30 ask 1x → rg30 granted 1x
        state S active
        reserved 0.01
        balance 9.95
        update S #2 rg10 used 1MiB ask 1MiB → rg10 granted 1MiB …
        ",
    );
}

#[test]
fn an_immediate_event_that_cannot_be_paid_changes_nothing_and_leaves_no_record() {
    check(
        "
        subscriber low
        create E #1 IEC rg30 ask 2x → rg30 QUOTA_LIMIT_REACHED
        balance 0.05
        cdrs E 0
        outbox →
        -- its answer is kept all the same
        credit main 1.00
        create E #1 IEC rg30 ask 2x → again rg30 QUOTA_LIMIT_REACHED
        tick 1s
        create F #1 IEC rg30 ask 2x → rg30 granted 2x
        balance 0.95
        create G #1 IEC rg60 ask 1x → rg60 END_USER_SERVICE_DENIED
        create H #1 IEC rg99 ask 1x → rg99 RATING_FAILED
        cdrs G 0
        cdrs H 0
        ",
    );
}

#[test]
fn a_refused_event_leaves_what_has_expired_to_the_next_entry() {
    check(
        "
        credit bonus 2.00 until 18:00
        now 18:00
        create E #1 IEC rg60 ask 1x → rg60 END_USER_SERVICE_DENIED
        balance bonus 2.00
        cdrs E 0
        tick 1s
        create F #1 IEC rg30 ask 1x → rg30 granted 1x
        moves → expire bonus 2.00, debit main 0.05
        balance bonus 0.00
        balance 9.95
        ",
    );
}

#[test]
fn the_last_event_that_can_be_paid_says_so() {
    check(
        "
        subscriber low
        create E #1 IEC rg30 ask 1x → rg30 granted 1x final terminate
        balance 0.00
        tick 1s
        create F #1 IEC rg30 ask 1x → rg30 QUOTA_LIMIT_REACHED
        subscriber postpaid
        create P #1 IEC rg30 ask 1x → rg30 granted 1x
        balance -0.05
        ",
    );
}

#[test]
fn an_immediate_event_at_the_price_of_the_moment_needs_no_more_than_that() {
    check(
        "
        now 07:59
        have main 0.005
        create E #1 IEC rg70 ask 1MiB → rg70 granted 1MiB final terminate
        balance 0.00
        now 08:00
        have main 0.005
        create F #2 IEC at 07:59 rg70 ask 1MiB → rg70 QUOTA_LIMIT_REACHED
        ",
    );
}

#[test]
fn an_event_after_the_fact_is_charged_whatever_is_left() {
    check(
        "
        create E #1 PEC rg30 used 2x → rg30 SUCCESS
        balance 9.90
        cdr E → cause 0 charged 0.10 rg30 2x
        outbox → record E/0
        subscriber empty
        create F #1 PEC rg30 used 1x → rg30 SUCCESS
        balance -0.05
        -- what it names without saying how much happened once, or as often as it asks for
        create G #1 PEC from=g rg30 → rg30 SUCCESS
        balance -0.10
        create H #1 PEC from=h rg30 ask 3x → rg30 SUCCESS
        balance -0.25
        cdr H → cause 0 charged 0.15 rg30 3x
        create I #1 event from=i rg30 used 1x → rg30 SUCCESS            -- of no type, but it reports
        balance -0.30
        create J #1 PEC from=j rg30 used 1x offline → rg30 SUCCESS
        balance -0.30
        ",
    );
}

#[test]
fn an_event_without_units_is_recorded_when_it_names_a_service() {
    check(
        "
        create R #1 PEC from=amf block=registrationChargingInformation → ok
        cdr R → cause 0 charged 0.00
        create I #1 IEC from=amf2 block=registrationChargingInformation → ok
        cdr I → cause 0 charged 0.00
        balance 10.00
        ",
    );
}

#[test]
fn an_event_of_no_kind_without_units_opens_a_session() {
    check(
        "
        create S1 #1 event block=sMSChargingInformation → ok
        state S1 active
        update S1 #2 rg30 ask 1x → rg30 granted 1x
        release S1 #3 rg30 used 1x
        balance 9.95
        ",
    );
}

#[test]
fn an_event_with_reservation_is_an_ordinary_short_session() {
    check(
        "
        create S1 #1 block=sMSChargingInformation rg30 ask 1x → rg30 granted 1x
        reserved 0.05
        release S1 #2 rg30 used 1x
        balance 9.95
        reserved 0.00
        create S2 #1 from=smf2 rg30 ask 1x → rg30 granted 1x
        release S2 #2 rg30 used 0x
        balance 9.95
        cdr S2 → cause 0 charged 0.00 rg30 0x
        ",
    );
}

#[test]
fn a_repeated_event_is_charged_once() {
    check(
        "
        i: create E #1 IEC rg30 ask 1x → rg30 granted 1x
        copy i → again rg30 granted 1x
        copy i marked → again rg30 granted 1x
        balance 9.95
        p: create P #1 PEC rg30 used 1x → rg30 SUCCESS
        copy p → again rg30 SUCCESS
        balance 9.90
        -- a second message is another event
        tick 1s
        create F #2 IEC rg30 ask 1x → rg30 granted 1x
        balance 9.85
        ",
    );
}

#[test]
fn an_event_belongs_to_no_pdu_session() {
    check(
        "
        create S1 #1 pdu=5 rg10 ask 1MiB → rg10 granted 1MiB …
        create E #1 pdu=6 IEC rg30 ask 1x → rg30 granted 1x
        tick 1s
        create S2 #1 pdu=6 rg10 ask 1MiB → rg10 granted 1MiB …
        state S1 active
        ",
    );
}
