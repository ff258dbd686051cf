//! What stands around records in a file.

use nchf::cdr_file::directory::FileNumber;
use nchf::cdr_file::ts32297::{Closure, FileHeader, Specification, file_name, record_header};
use nchf::charging::time::Timestamp;

use super::{block, cdr};

#[test]
fn a_header_has_each_number_in_its_place() {
    let header = FileHeader {
        length: 0x0102_0304,
        // 2026-12-31T23:59:58Z and one minute before.
        opened_at: Timestamp::from_secs(1_798_761_538),
        appended_at: Timestamp::from_secs(1_798_761_598),
        records: 5,
        number: FileNumber(17),
        closure: Closure::Records,
    };
    let octets = header.octets();
    let minute = |minute: u32| (12 << 28 | 31 << 23 | 23 << 18 | minute << 12 | 1 << 11_u32).to_be_bytes();
    assert_eq!(octets[..10], [1, 2, 3, 4, 0, 0, 0, 54, 0xe8, 0xe8]);
    assert_eq!(octets[10..14], minute(58));
    assert_eq!(octets[14..18], minute(59));
    assert_eq!(octets[18..27], [0, 0, 0, 5, 0, 0, 0, 17, 3]);
    assert_eq!(octets[27..47], [0xff; 20]);
    assert_eq!(octets[47..], [0, 0, 0, 0, 0, 8, 8]);
    assert_eq!(FileHeader { length: 1 << 33, ..header }.octets()[..4], [0xff; 4]);
}

#[test]
fn a_record_says_its_length_its_release_and_its_service() {
    let mut cdr = cdr();
    assert_eq!(record_header(0x0102, Specification::of(&cdr)), [1, 2, 0xe8, 0x20 | 20, 8]);
    cdr.blocks.push(block("sMSChargingInformation", "{}"));
    assert_eq!(record_header(0xffff, Specification::of(&cdr)), [0xff, 0xff, 0xe8, 0x20 | 15, 8]);
}

#[test]
fn a_name_says_who_which_and_when() {
    let name = file_name("nchf", FileNumber(17), Timestamp::from_secs(1_798_761_598), "ber");
    assert_eq!(name, "nchf_-_17.20261231_-_2359+0000.ber");
}
