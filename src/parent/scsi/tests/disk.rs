//! Each command of a disk: what it does, and what it refuses.
#![allow(missing_docs, reason = "a test has no users")]

mod rig;

use std::io;
use std::sync::atomic::Ordering;

use rig::{Memory, cdb_10, cdb_16, rig, rig_of};
use scsi::{Completion, Data, Sense};

const BLOCKS: u64 = 2048;

#[test]
fn inquiry_says_who_it_is() {
    let rig = rig();
    let answer = rig.answer(0, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(answer.len(), 36);
    assert_eq!(answer[..4], [0x00, 0x00, 0x05, 0x02]);
    assert_eq!(&answer[8..36], b"Msft    Virtual Disk    1.0 ");
    let whole = rig.answer(0, &[0x12, 0, 0, 0, 255, 0]);
    assert_eq!(whole.len(), usize::from(answer[4]) + 5);
    rig.refused(0, &[0x12, 0, 0x80, 0, 255, 0], Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn vital_product_data_names_its_pages_and_has_them() {
    let rig = rig();
    let page = |number| rig.answer(0, &[0x12, 1, number, 0, 255, 0]);
    assert_eq!(page(0x00), [0, 0, 0, 6, 0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2]);
    for number in [0x80, 0x83, 0xB0, 0xB1, 0xB2] {
        let answer = page(number);
        assert_eq!(answer[..2], [0, number]);
        let len = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
        assert_eq!(answer.len(), len + 4);
    }
    assert_eq!(&page(0x80)[4..], b"serial-7");
    let ids = page(0x83);
    assert_eq!(ids[4..8], [1, 3, 0, 8]);
    assert_eq!(ids[8] >> 4, 3);
    assert_eq!(&ids[20..], b"Msft    serial-7");
    let limits = page(0xB0);
    assert_eq!(limits.len(), 64);
    assert_eq!(limits[4], 1);
    assert_eq!(limits[6..8], 8u16.to_be_bytes());
    assert_eq!(limits[20..24], 8_388_608u32.to_be_bytes());
    assert_eq!(limits[24..28], 256u32.to_be_bytes());
    assert_eq!(limits[28..32], 8u32.to_be_bytes());
    assert_eq!(limits[36..44], 65_536u64.to_be_bytes());
    assert_eq!(page(0xB1)[4..6], [0, 1]);
    assert_eq!(page(0xB2)[4..8], [0, 0xE4, 2, 0]);
    rig.refused(0, &[0x12, 1, 0xB7, 0, 255, 0], Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn without_discard_nothing_promises_it() {
    let mut image = Memory::new(1 << 20);
    image.traits.discard = None;
    let rig = rig_of(image, true);
    let pages = rig.answer(0, &[0x12, 1, 0, 0, 255, 0]);
    assert!(!pages[4..].contains(&0xB2));
    assert_eq!(rig.answer(0, &[0x12, 1, 0xB0, 0, 255, 0])[20..36], [0; 16]);
    let capacity = rig.answer(0, &cdb_16(0x9E, 0x10, 0, 32));
    assert_eq!(capacity[14], 0);
    rig.refused(0, &cdb_10(0x42, 0, 0, 24), Sense::INVALID_OPERATION_CODE);
    rig.refused(0, &cdb_16(0x93, 8, 0, 8), Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn capacities_are_the_images() {
    let rig = rig();
    let capacity = rig.answer(0, &cdb_10(0x25, 0, 0, 0));
    assert_eq!(capacity, [0, 0, 0x07, 0xFF, 0, 0, 2, 0]);
    let capacity = rig.answer(0, &cdb_16(0x9E, 0x10, 0, 32));
    assert_eq!(capacity.len(), 32);
    assert_eq!(capacity[..12], [0, 0, 0, 0, 0, 0, 7, 0xFF, 0, 0, 2, 0]);
    // Eight logical blocks in a physical one; LBPME and LBPRZ.
    assert_eq!(capacity[12..16], [0, 3, 0xC0, 0]);
    assert_eq!(rig.answer(0, &cdb_16(0x9E, 0x10, 0, 12)).len(), 12);
    rig.refused(0, &cdb_10(0x25, 0, 5, 0), Sense::INVALID_FIELD_IN_CDB);
    rig.refused(0, &cdb_16(0x9E, 0x12, 0, 32), Sense::INVALID_OPERATION_CODE);
}

#[test]
fn all_forms_of_read_and_write_move_the_same_blocks() {
    let rig = rig();
    let forms = |lba: u32, read: bool| -> Vec<Vec<u8>> {
        let op = |read_op: u8, write_op: u8| if read { read_op } else { write_op };
        let mut twelve = vec![op(0xA8, 0xAA), 0];
        twelve.extend(lba.to_be_bytes());
        twelve.extend(3u32.to_be_bytes());
        twelve.extend([0, 0]);
        vec![
            vec![op(0x08, 0x0A), 0, (lba >> 8) as u8, lba as u8, 3, 0],
            cdb_10(op(0x28, 0x2A), 0, lba, 3).to_vec(),
            twelve,
            cdb_16(op(0x88, 0x8A), 0, u64::from(lba), 3).to_vec(),
        ]
    };
    for (index, (write, read)) in forms(300, false)
        .into_iter()
        .zip(forms(300, true))
        .enumerate()
    {
        let bytes: Vec<u8> = (0..1536).map(|at| (at * 7 + index) as u8).collect();
        assert_eq!(rig.write(0, &write, &bytes), Completion::Good(1536));
        assert_eq!(rig.image.bytes.lock().unwrap()[153_600..155_136], bytes);
        let (end, buffer) = rig.read(0, &read, 1536);
        assert_eq!(end, Completion::Good(1536));
        assert_eq!(buffer, bytes);
    }
    // Zero blocks are 256 in the shortest form and none in the others.
    let (end, _) = rig.read(0, &[0x08, 0, 0, 0, 0, 0], 256 * 512);
    assert_eq!(end, Completion::Good(256 * 512));
    assert_eq!(rig.none(0, &cdb_10(0x28, 0, 0, 0)), Completion::Good(0));
    assert_eq!(rig.none(0, &cdb_10(0x2A, 0, 0, 0)), Completion::Good(0));
}

#[test]
fn blocks_that_are_not_there_are_refused() {
    let rig = rig();
    let last = BLOCKS as u32 - 1;
    assert_eq!(
        rig.read(0, &cdb_10(0x28, 0, last, 1), 512).0,
        Completion::Good(512)
    );
    for cdb in [
        cdb_10(0x28, 0, last, 2),
        cdb_10(0x28, 0, last + 2, 0),
        cdb_10(0x28, 0, u32::MAX, 1),
        cdb_10(0x2A, 0, last, 2),
        cdb_10(0x35, 0, last, 2),
        cdb_10(0x2F, 0, last, 2),
    ] {
        rig.refused(0, &cdb, Sense::LBA_OUT_OF_RANGE);
    }
    for lba in [BLOCKS, u64::MAX, u64::MAX / 512, 1 << 55] {
        rig.refused(0, &cdb_16(0x88, 0, lba, 1), Sense::LBA_OUT_OF_RANGE);
        rig.refused(0, &cdb_16(0x8A, 0, lba, u32::MAX), Sense::LBA_OUT_OF_RANGE);
    }
}

#[test]
fn a_buffer_that_is_too_small_or_goes_the_other_way_moves_nothing() {
    let rig = rig();
    let (end, buffer) = rig.read(0, &cdb_10(0x28, 0, 0, 2), 1023);
    assert_eq!(end, Completion::Overrun);
    assert!(buffer.iter().all(|byte| *byte == 0xEE));
    assert_eq!(
        rig.write(0, &cdb_10(0x28, 0, 0, 1), &[0; 512]),
        Completion::Overrun
    );
    let before = rig.image.bytes.lock().unwrap().clone();
    assert_eq!(
        rig.read(0, &cdb_10(0x2A, 0, 0, 1), 512).0,
        Completion::Overrun
    );
    assert_eq!(
        rig.write(0, &cdb_10(0x2A, 0, 0, 2), &[0; 512]),
        Completion::Overrun
    );
    assert_eq!(rig.none(0, &cdb_10(0x2A, 0, 0, 1)), Completion::Overrun);
    assert_eq!(*rig.image.bytes.lock().unwrap(), before);
    // More room than blocks: only the blocks move.
    let (end, buffer) = rig.read(0, &cdb_10(0x28, 0, 0, 1), 1000);
    assert_eq!(end, Completion::Good(512));
    assert!(buffer[512..].iter().all(|byte| *byte == 0xEE));
}

#[test]
fn flushes_happen_when_they_are_asked_for() {
    let rig = rig();
    let flushes = || rig.image.flushes.load(Ordering::Relaxed);
    rig.write(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512]);
    assert_eq!(flushes(), 0);
    assert_eq!(rig.none(0, &cdb_10(0x35, 0, 0, 0)), Completion::Good(0));
    assert_eq!(flushes(), 1);
    assert_eq!(rig.none(0, &cdb_16(0x91, 2, 0, 8)), Completion::Good(0));
    assert_eq!(flushes(), 2);
    rig.write(0, &cdb_10(0x2A, 8, 0, 1), &[0; 512]);
    assert_eq!(flushes(), 3);
    *rig.image.failure.lock().unwrap() = Some(io::ErrorKind::Other);
    assert_eq!(
        rig.none(0, &cdb_10(0x35, 0, 0, 0)),
        Completion::Check(Sense::WRITE_ERROR)
    );
}

#[test]
fn without_a_cache_every_write_is_flushed_and_the_page_says_so() {
    let rig = rig_of(Memory::new(1 << 20), false);
    rig.write(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512]);
    rig.write(0, &cdb_10(0x41, 0, 8, 4), &[0; 512]);
    assert_eq!(rig.image.flushes.load(Ordering::Relaxed), 2);
    let mode = rig.answer(0, &[0x1A, 8, 0x08, 0, 255, 0]);
    assert_eq!(mode[6] & 4, 0);
}

#[test]
fn failures_below_become_sense_data() {
    let rig = rig();
    let fail = |kind| *rig.image.failure.lock().unwrap() = Some(kind);
    fail(io::ErrorKind::Other);
    rig.refused(0, &cdb_10(0x28, 0, 0, 1), Sense::UNRECOVERED_READ);
    let write = || rig.write(0, &cdb_10(0x2A, 0, 0, 1), &[0; 512]);
    assert_eq!(write(), Completion::Check(Sense::WRITE_ERROR));
    fail(io::ErrorKind::StorageFull);
    assert_eq!(write(), Completion::Check(Sense::NO_SPACE));
}

#[test]
fn a_read_only_disk_changes_nothing_and_says_so() {
    let mut image = Memory::new(1 << 20);
    image.traits.is_read_only = true;
    image.traits.discard = None;
    let rig = rig_of(image, true);
    for cdb in [
        cdb_10(0x2A, 0, 0, 1),
        cdb_10(0x2E, 0, 0, 1),
        cdb_10(0x41, 0, 0, 1),
    ] {
        let end = rig.write(0, &cdb, &[0; 512]);
        assert_eq!(end, Completion::Check(Sense::WRITE_PROTECTED));
    }
    let mode = rig.answer(0, &[0x1A, 0, 0x3F, 0, 255, 0]);
    assert_eq!(mode[2] & 0x80, 0x80);
    assert_eq!(
        rig.read(0, &cdb_10(0x28, 0, 0, 1), 512).0,
        Completion::Good(512)
    );
}

#[test]
fn mode_pages_in_both_forms() {
    let rig = rig();
    let six = rig.answer(0, &[0x1A, 0, 0x3F, 0, 255, 0]);
    assert_eq!(usize::from(six[0]) + 1, six.len());
    // FUA is honoured; one block descriptor.
    assert_eq!(six[1..4], [0, 0x10, 8]);
    assert_eq!(six[4..12], [0, 0, 8, 0, 0, 0, 2, 0]);
    // Caching page with write cache, then the control page.
    assert_eq!(six[12..15], [0x08, 0x12, 0x04]);
    assert_eq!(six[32..34], [0x0A, 0x0A]);
    let mut cdb = cdb_10(0x5A, 8, 0, 255);
    cdb[2] = 0x08;
    let ten = rig.answer(0, &cdb);
    assert_eq!(
        usize::from(u16::from_be_bytes([ten[0], ten[1]])) + 2,
        ten.len()
    );
    assert_eq!(ten[2..8], [0, 0x10, 0, 0, 0, 0]);
    assert_eq!(ten[8..11], [0x08, 0x12, 0x04]);
    // What could be changed: nothing. What was saved: there is no such thing.
    let changeable = rig.answer(0, &[0x1A, 8, 0x48, 0, 255, 0]);
    assert!(changeable[6..].iter().all(|byte| *byte == 0));
    rig.refused(0, &[0x1A, 0, 0xC8, 0, 255, 0], Sense::NO_SAVED_PAGES);
    rig.refused(0, &[0x1A, 0, 0x0A, 5, 255, 0], Sense::INVALID_FIELD_IN_CDB);
    rig.refused(0, &[0x1A, 0, 0x1C, 0, 255, 0], Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn unmap_discards_all_its_ranges_or_none() {
    let rig = rig();
    let list = |ranges: &[(u64, u32)]| {
        let len = ranges.len() as u16 * 16;
        let mut list = (len + 6).to_be_bytes().to_vec();
        list.extend(len.to_be_bytes());
        list.extend([0; 4]);
        for (lba, count) in ranges {
            list.extend(lba.to_be_bytes());
            list.extend(count.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    };
    let unmap = |list: &[u8]| rig.write(0, &cdb_10(0x42, 0, 0, list.len() as u16), list);
    let two = list(&[(8, 8), (100, 1)]);
    assert_eq!(unmap(&two), Completion::Good(two.len() as u32));
    assert_eq!(rig.image.discarded.load(Ordering::Relaxed), 9 * 512);
    assert!(
        rig.image.bytes.lock().unwrap()[4096..8192]
            .iter()
            .all(|byte| *byte == 0)
    );
    let bad = list(&[(16, 8), (BLOCKS - 1, 2)]);
    assert_eq!(unmap(&bad), Completion::Check(Sense::LBA_OUT_OF_RANGE));
    let worse = list(&[(u64::MAX, u32::MAX)]);
    assert_eq!(unmap(&worse), Completion::Check(Sense::LBA_OUT_OF_RANGE));
    assert_eq!(rig.image.discarded.load(Ordering::Relaxed), 9 * 512);
    assert_eq!(
        unmap(&[0; 7]),
        Completion::Check(Sense::PARAMETER_LIST_LENGTH)
    );
    assert_eq!(unmap(&[]), Completion::Good(0));
    // More than the list says was sent, and a descriptor that is not whole.
    let mut cut = list(&[(0, 1), (1, 1)]);
    cut.truncate(8 + 16 + 10);
    assert_eq!(unmap(&cut), Completion::Good(cut.len() as u32));
    assert_eq!(rig.image.discarded.load(Ordering::Relaxed), 10 * 512);
    let anchored = rig.write(0, &cdb_10(0x42, 1, 0, 24), &list(&[(0, 1)]));
    assert_eq!(anchored, Completion::Check(Sense::INVALID_FIELD_IN_CDB));
    // The buffer is shorter than the list should be.
    let short = rig.write(0, &cdb_10(0x42, 0, 0, 24), &[0; 23]);
    assert_eq!(short, Completion::Overrun);
}

#[test]
fn write_same_writes_zeroes_or_discards() {
    let rig = rig();
    let at = |block: usize| rig.image.bytes.lock().unwrap()[block * 512..][..512].to_vec();
    let discarded = || rig.image.discarded.load(Ordering::Relaxed);
    let pattern = [0xA5; 512];
    let same = |cdb: &[u8], block: &[u8]| rig.write(0, cdb, block);
    assert_eq!(
        same(&cdb_10(0x41, 0, 4, 300), &pattern),
        Completion::Good(512)
    );
    assert!(at(4) == pattern && at(303) == pattern && at(304) != pattern && at(3) != pattern);
    assert_eq!(
        same(&cdb_16(0x93, 0, 4, 2), &[0; 512]),
        Completion::Good(512)
    );
    assert!(at(5) == [0; 512] && at(6) == pattern);
    assert_eq!(discarded(), 0);
    assert_eq!(
        same(&cdb_16(0x93, 8, 8, 4), &[0; 512]),
        Completion::Good(512)
    );
    assert_eq!(discarded(), 4 * 512);
    // A pattern cannot be discarded, whatever the flag says.
    assert_eq!(
        same(&cdb_16(0x93, 8, 8, 4), &pattern),
        Completion::Good(512)
    );
    assert!(at(8) == pattern);
    // Without a data-out buffer.
    assert_eq!(rig.none(0, &cdb_16(0x93, 9, 8, 4)), Completion::Good(0));
    assert!(at(8) == [0; 512]);
    for cdb in [
        cdb_16(0x93, 0, 0, 0),
        cdb_16(0x93, 0x10, 0, 1),
        cdb_16(0x93, 0x20, 0, 1),
        cdb_16(0x93, 2, 0, 1),
    ] {
        let end = same(&cdb, &pattern);
        assert_eq!(end, Completion::Check(Sense::INVALID_FIELD_IN_CDB));
    }
    assert_eq!(
        same(&cdb_10(0x41, 1, 0, 1), &pattern),
        Completion::Check(Sense::INVALID_FIELD_IN_CDB)
    );
    assert_eq!(
        same(&cdb_16(0x93, 0, BLOCKS, 1), &pattern),
        Completion::Check(Sense::LBA_OUT_OF_RANGE)
    );
}

#[test]
fn a_resize_is_told_once_and_then_seen() {
    let rig = rig();
    rig.disk.resize(2 << 20).unwrap();
    // An inquiry neither tells nor forgets.
    rig.answer(0, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(
        rig.none(0, &[0; 6]),
        Completion::Check(Sense::CAPACITY_CHANGED)
    );
    assert_eq!(rig.none(0, &[0; 6]), Completion::Good(0));
    let capacity = rig.answer(0, &cdb_10(0x25, 0, 0, 0));
    assert_eq!(capacity[..4], [0, 0, 0x0F, 0xFF]);
    rig.disk.resize(1 << 20).unwrap();
    let sense = rig.answer(0, &[0x03, 0, 0, 0, 255, 0]);
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x2A, 9));
    assert_eq!(rig.none(0, &[0; 6]), Completion::Good(0));
    rig.refused(0, &cdb_16(0x88, 0, BLOCKS, 1), Sense::LBA_OUT_OF_RANGE);
}

#[test]
fn a_stopped_disk_says_how_to_start_it() {
    let rig = rig();
    assert_eq!(rig.none(0, &[0x1B, 0, 0, 0, 0, 0]), Completion::Good(0));
    assert_eq!(rig.image.flushes.load(Ordering::Relaxed), 1);
    assert_eq!(rig.none(0, &[0; 6]), Completion::Check(Sense::STOPPED));
    rig.refused(0, &cdb_10(0x28, 0, 0, 1), Sense::STOPPED);
    assert_eq!(rig.none(0, &[0x1B, 0, 0, 0, 1, 0]), Completion::Good(0));
    assert_eq!(rig.none(0, &[0; 6]), Completion::Good(0));
    rig.refused(0, &[0x1B, 0, 0, 0, 2, 0], Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn verify_reads_and_compares_nothing() {
    let rig = rig();
    assert_eq!(rig.none(0, &cdb_10(0x2F, 0, 0, 2048)), Completion::Good(0));
    assert_eq!(rig.none(0, &cdb_16(0x8F, 0, 0, 1)), Completion::Good(0));
    rig.refused(0, &cdb_10(0x2F, 2, 0, 1), Sense::INVALID_FIELD_IN_CDB);
    *rig.image.failure.lock().unwrap() = Some(io::ErrorKind::Other);
    rig.refused(0, &cdb_10(0x2F, 0, 0, 1), Sense::UNRECOVERED_READ);
}

#[test]
fn what_no_disk_of_ours_has_is_refused() {
    let rig = rig();
    for opcode in [
        0x04, 0x15, 0x16, 0x17, 0x1C, 0x1D, 0x1E, 0x3B, 0x3C, 0x4D, 0x55, 0x56, 0x57, 0x5E, 0x5F,
        0x83, 0x84, 0x85, 0x89, 0x9B, 0xA1, 0xA3, 0xA4, 0x7F, 0xC0, 0xFF,
    ] {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        rig.refused(0, &cdb, Sense::INVALID_OPERATION_CODE);
    }
    rig.refused(0, &[0x28, 0, 0, 0, 0, 0], Sense::INVALID_FIELD_IN_CDB);
    rig.refused(0, &cdb_10(0x28, 0x20, 0, 1), Sense::INVALID_FIELD_IN_CDB);
    rig.refused(0, &[], Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn units_are_reported_and_absent_ones_are_not_disks() {
    let rig = rig();
    let report = |lun| rig.answer(lun, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    let mut expected = vec![0, 0, 0, 16, 0, 0, 0, 0];
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(report(0), expected);
    assert_eq!(report(9), expected);
    let absent = rig.answer(1, &[0x12, 0, 0, 0, 255, 0]);
    assert_eq!((absent.len(), absent[0]), (36, 0x7F));
    rig.refused(1, &[0x12, 1, 0, 0, 255, 0], Sense::NO_SUCH_UNIT);
    assert_eq!(rig.none(1, &[0; 6]), Completion::NoUnit);
    assert_eq!(
        rig.read(1, &cdb_10(0x28, 0, 0, 1), 512).0,
        Completion::NoUnit
    );
    let nowhere = scsi::Target::execute_nowhere(&[0; 6], &Data::None);
    assert_eq!(nowhere, Completion::NoUnit);
    let list = rig.list(64);
    let end = scsi::Target::execute_nowhere(
        &[0xA0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
        &Data::In(list.clone()),
    );
    assert_eq!(end, Completion::Good(8));
    assert!(rig.target.insert(0, rig.disk.clone()).is_err());
    assert!(rig.target.insert(64, rig.disk.clone()).is_err());
    assert!(rig.target.remove(0).is_some());
    assert_eq!(rig.none(0, &[0; 6]), Completion::NoUnit);
}

#[test]
fn blocks_of_four_kibibytes() {
    let mut image = Memory::new(1 << 20);
    image.traits.logical_block = 4096;
    let rig = rig_of(image, true);
    let capacity = rig.answer(0, &cdb_10(0x25, 0, 0, 0));
    assert_eq!(capacity, [0, 0, 0, 0xFF, 0, 0, 0x10, 0]);
    let (end, buffer) = rig.read(0, &cdb_10(0x28, 0, 255, 1), 4096);
    assert_eq!(end, Completion::Good(4096));
    assert_eq!(buffer, rig.image.bytes.lock().unwrap()[0xF_F000..]);
    rig.refused(0, &cdb_10(0x28, 0, 256, 1), Sense::LBA_OUT_OF_RANGE);
}
