//! Charging data records: every container once, what it cost, and why the record was closed.

use nchf::charging::cdr::Cdr;
use nchf::charging::ids::ChargingDataRef;
use nchf::charging::journal::{Entry, Published};

use super::world::World;
use super::{check, play};

#[test]
fn a_record_holds_every_container_once_in_the_order_of_the_reports() {
    check(
        "
        create S1 #1 rg10@A ask 10MiB rg10@B ask 10MiB rg50 ask {}
            → rg10@A granted 10MiB … rg10@B granted 10MiB … rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        update S1 #2 rg10@B used 1MiB #1 online QUOTA_THRESHOLD ask 10MiB rg50 used 7 #2 → rg10@B granted 10MiB … rg50 QUOTA_MANAGEMENT_NOT_APPLICABLE
        u: update S1 #3 rg10@A used 2MiB #3 suspended rg10@B used 1MiB #1 online QUOTA_THRESHOLD used 3 #4 offline
            → rg10@A SUCCESS rg10@B SUCCESS
        copy u → again rg10@A SUCCESS rg10@B SUCCESS
        cdrs S1 0
        release S1 #4 rg10@A used 5 #5
        cdrs S1 1
        cdr S1 → cause 0 charged 0.04 rg10@B 1048576 online QUOTA_THRESHOLD 3 offline rg50 7 rg10@A 2097152 suspended 5
        ",
    );
}

#[test]
fn what_could_not_be_rated_is_in_the_record_all_the_same() {
    check(
        "
        create S1 #1 rg99 ask {} → rg99 RATING_FAILED
        update S1 #2 rg99 used 5MiB online ask {} → rg99 RATING_FAILED
        release S1 #3
        cdr S1 → cause 0 charged 0.00 rg99 5242880 online
        ",
    );
}

#[test]
fn the_other_members_of_requests_are_recorded_as_they_were_last() {
    check(
        "
        create S1 #1 pdu=5 block=userLocation:brussels → ok
        update S1 #2 block=userLocation:ghent → ok
        update S1 #3 block=userLocation:ghent → ok
        release S1 #4 block=stop:now rg10 used 1
        blocks S1 → pDUSessionChargingInformation:5 userLocation:ghent stop:now
        update S1 #5 rg10 used 1 → gone
        blocks S1/1 → pDUSessionChargingInformation:5 userLocation:ghent stop:now
        ",
    );
}

#[test]
fn the_charge_of_a_record_is_money_only() {
    check(
        "
        subscriber bundle
        create S1 #1 rg90 ask 1MiB rg10 ask 1MiB → rg90 granted 1MiB rg10 granted 1MiB …
        release S1 #2 rg90 used 1MiB rg10 used 1MiB
        cdr S1 → cause 0 charged 0.01 rg90 1048576 rg10 1048576
        ",
    );
}

#[test]
fn an_open_session_and_a_refused_event_have_no_record() {
    check(
        "
        create S1 #1 rg10 used 1MiB ask {} → rg10 granted 10MiB …
        cdr S1 → none
        create E #1 IEC rg60 ask 1x → rg60 END_USER_SERVICE_DENIED
        cdr E → none
        -- an event that was granted in part took place
        create F #1 IEC rg60 ask 1x rg30 ask 1x → rg60 END_USER_SERVICE_DENIED rg30 granted 1x
        cdr F → cause 0 charged 0.05
        ",
    );
}

#[test]
fn a_record_tells_where_it_was_published() {
    let world = play(
        World::demo(),
        "
        create S1 #1 rg10 ask 1MiB → rg10 granted 1MiB …
        update S1 #2 TIME_LIMIT rg10 used 1MiB → rg10 SUCCESS
        release S1 #3 rg10 used 1MiB
        ",
    );
    let (reference, journal) = world.journals.first_key_value().unwrap();
    let published = Published { part: 0, local_record_sequence_number: 7, file: "CHF_-_1.20260615_-_1200".into() };
    let mut entries = journal[..2].to_vec();
    entries.push(Entry::published(world.now, published.clone()));
    assert_eq!(Cdr::part(reference, &entries, 1), None, "still open");
    // Nobody publishes a record that has not closed.
    entries.push(Entry::published(world.now, Published { part: 9, ..published.clone() }));
    entries.push(journal[2].clone());

    let [first, second] = &Cdr::of_journal(reference, &entries)[..] else { panic!("two records") };
    assert_eq!(first.published, Some(published));
    assert_eq!(second.published, None);
    assert_eq!(Cdr::part(reference, &entries, 1).as_ref(), Some(second));
    let unpublished = Cdr::of_journal(reference, journal);
    assert_eq!(Cdr { published: None, ..first.clone() }, unpublished[0]);
    assert_eq!(*second, unpublished[1], "what is appended in between belongs to no record");
    assert_eq!(Cdr::of_journal(&ChargingDataRef::new("none"), &[]), []);
}
