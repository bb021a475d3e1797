//! Each command of a CD-ROM drive.
#![allow(missing_docs, reason = "a test has no users")]

mod rig;

use std::sync::Arc;

use rig::{Memory, cdb_10, rig};
use scsi::{Completion, Sense};

const EVENT: [u8; 10] = [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];

#[test]
fn it_is_a_drive_with_a_medium() {
    let rig = rig();
    let inquiry = rig.answer(2, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(inquiry[..2], [5, 0x80]);
    assert_eq!(&inquiry[8..32], b"Msft    Virtual DVD-ROM ");
    assert_eq!(rig.none(2, &[0; 6]), Completion::Good(0));
    let capacity = rig.answer(2, &cdb_10(0x25, 0, 0, 0));
    assert_eq!(capacity, [0, 0, 0x02, 0xBB, 0, 0, 8, 0]);
    let pages = rig.answer(2, &[0x12, 1, 0, 0, 255, 0]);
    assert_eq!(pages[4..], [0, 0x80, 0x83]);
}

#[test]
fn blocks_of_two_kibibytes_are_read() {
    let rig = rig();
    let (end, ten) = rig.read(2, &cdb_10(0x28, 0, 5, 2), 4096);
    assert_eq!(end, Completion::Good(4096));
    let expected: Vec<u8> = (5 * 2048..7 * 2048usize)
        .map(|at| (at / 512 + at) as u8)
        .collect();
    assert_eq!(ten, expected);
    let (_, twelve) = rig.read(2, &[0xA8, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], 4096);
    assert_eq!(twelve, ten);
    rig.refused(2, &cdb_10(0x28, 0, 699, 2), Sense::LBA_OUT_OF_RANGE);
    rig.refused(2, &cdb_10(0x28, 0, u32::MAX, 2), Sense::LBA_OUT_OF_RANGE);
    assert_eq!(
        rig.read(2, &cdb_10(0x28, 0, 0, 1), 2047).0,
        Completion::Overrun
    );
    let huge = [0xA8, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0];
    rig.refused(2, &huge, Sense::LBA_OUT_OF_RANGE);
    assert_eq!(rig.none(2, &cdb_10(0x2B, 0, 699, 0)), Completion::Good(0));
    rig.refused(2, &cdb_10(0x2B, 0, 700, 0), Sense::LBA_OUT_OF_RANGE);
    rig.refused(2, &cdb_10(0x2A, 0, 0, 1), Sense::INVALID_OPERATION_CODE);
}

#[test]
fn one_data_track_is_all_there_is() {
    let rig = rig();
    let toc = rig.answer(2, &cdb_10(0x43, 0, 0, 255));
    assert_eq!(toc[..4], [0, 18, 1, 1]);
    assert_eq!(toc[4..12], [0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(toc[12..], [0, 0x14, 0xAA, 0, 0, 0, 0x02, 0xBC]);
    let msf = rig.answer(2, &cdb_10(0x43, 2, 0, 255));
    assert_eq!(msf[8..12], [0, 0, 2, 0]);
    // 700 + 150 frames.
    assert_eq!(msf[16..20], [0, 0, 11, 25]);
    let mut lead_out = cdb_10(0x43, 0, 0, 255);
    lead_out[6] = 0xAA;
    assert_eq!(rig.answer(2, &lead_out).len(), 12);
    lead_out[6] = 2;
    rig.refused(2, &lead_out, Sense::INVALID_FIELD_IN_CDB);
    let mut session = cdb_10(0x43, 0, 0, 255);
    session[2] = 1;
    assert_eq!(rig.answer(2, &session)[..4], [0, 10, 1, 1]);
    session[2] = 2;
    assert_eq!(rig.answer(2, &session).len(), 4 + 4 * 11);
    session[2] = 5;
    rig.refused(2, &session, Sense::INVALID_FIELD_IN_CDB);
    let disc = rig.answer(2, &cdb_10(0x51, 0, 0, 255));
    assert_eq!((disc.len(), disc[1], disc[2]), (34, 32, 0x0E));
}

#[test]
fn features_and_pages() {
    let rig = rig();
    let all = rig.answer(2, &cdb_10(0x46, 0, 0, 255));
    assert_eq!(all[..4], (all.len() as u32 - 4).to_be_bytes());
    assert_eq!(all[6..8], [0, 8]);
    let mut one = cdb_10(0x46, 2, 0, 255);
    one[3] = 0x1E;
    let answer = rig.answer(2, &one);
    assert_eq!(answer[8..12], [0, 0x1E, 9, 4]);
    let mode = rig.answer(2, &[0x1A, 0, 0x2A, 0, 255, 0]);
    assert_eq!(mode[..6], [mode.len() as u8 - 1, 0, 0, 0, 0x2A, 20]);
}

#[test]
fn media_come_and_go() {
    let rig = rig();
    assert_eq!(rig.answer(2, &EVENT), [0, 6, 4, 0x10, 0, 2, 0, 0]);
    rig.cdrom.change(None);
    assert_eq!(rig.answer(2, &EVENT), [0, 6, 4, 0x10, 3, 0, 0, 0]);
    assert_eq!(rig.none(2, &[0; 6]), Completion::Check(Sense::NO_MEDIUM));
    for cdb in [
        cdb_10(0x25, 0, 0, 0),
        cdb_10(0x28, 0, 0, 1),
        cdb_10(0x43, 0, 0, 9),
    ] {
        rig.refused(2, &cdb, Sense::NO_MEDIUM);
    }
    rig.cdrom.change(Some(Arc::new(Memory::new(2048 * 10))));
    assert_eq!(
        rig.none(2, &[0; 6]),
        Completion::Check(Sense::MEDIUM_CHANGED)
    );
    assert_eq!(rig.none(2, &[0; 6]), Completion::Good(0));
    assert_eq!(rig.answer(2, &EVENT)[4], 2);
    assert_eq!(rig.answer(2, &EVENT)[4], 0);
    // The old way of asking without polling.
    let mut wait = EVENT;
    wait[1] = 0;
    rig.refused(2, &wait, Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn a_locked_drive_keeps_its_medium() {
    let rig = rig();
    assert_eq!(rig.none(2, &[0x1E, 0, 0, 0, 1, 0]), Completion::Good(0));
    assert!(!rig.cdrom.request_eject());
    assert_eq!(rig.answer(2, &EVENT)[4], 1);
    rig.refused(2, &[0x1B, 0, 0, 0, 2, 0], Sense::REMOVAL_PREVENTED);
    assert_eq!(rig.none(2, &[0x1E, 0, 0, 0, 0, 0]), Completion::Good(0));
    assert!(rig.cdrom.request_eject());
    assert_eq!(rig.none(2, &[0x1B, 0, 0, 0, 2, 0]), Completion::Good(0));
    assert_eq!(rig.none(2, &[0; 6]), Completion::Check(Sense::NO_MEDIUM));
}
