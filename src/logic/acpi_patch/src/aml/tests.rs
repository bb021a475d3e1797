extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::table::is_intact;

/// A table with `body` behind its header.
fn table(body: &[u8]) -> Vec<u8> {
    let mut table = std::vec![0u8; HEADER_LEN];
    table[..4].copy_from_slice(b"DSDT");
    table.extend_from_slice(body);
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    fix_checksum(&mut table);
    table
}

#[test]
fn the_sleep_types_are_read_in_every_form() {
    let types = |body: &[u8]| s5_types(&table(body));
    // As QEMU writes it: Name (_S5, Package (4) { 0, 0, 0, 0 }).
    assert_eq!(types(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"), Some(0));
    assert_eq!(
        types(b"\x08\\_S5_\x12\x0A\x04\x0A\x05\x0A\x07\x00\x00"),
        Some(0x0705)
    );
    assert_eq!(types(b"\x08_S5_\x12\x06\x02\x01\x0A\x06"), Some(0x0601));
    assert_eq!(types(b"\x08_S5_\x12\x06\x01\x0B\x34\x12"), Some(0x1234));
    assert_eq!(
        types(b"\x08_S5_\x12\x4A\x00\x02\x0A\x03\x0A\x04"),
        Some(0x0403)
    );
}

#[test]
fn what_is_not_a_declaration_gives_no_sleep_types() {
    let types = |body: &[u8]| s5_types(&table(body));
    assert_eq!(types(b"_S5_\x12\x06\x04\x00\x00\x00\x00"), None);
    assert_eq!(types(b"\x08_S5_\x0A\x05"), None);
    assert_eq!(types(b"\x08_S5_\x12\x06\x04\x5B\x80"), None);
    assert_eq!(types(b"\x08_S5_"), None);
    assert_eq!(s5_types(b""), None);
}

#[test]
fn sleep_to_memory_is_hidden_and_the_checksum_kept() {
    let mut dsdt =
        table(b"\x08_S3_\x12\x06\x04\x01\x01\x00\x00\x08_S4_\x12\x06\x04\x02\x02\x00\x00");
    assert_eq!(hide_s3(&mut dsdt), 1);
    assert!(is_intact(&dsdt));
    assert!(dsdt.windows(4).any(|w| w == b"XS3_") && dsdt.windows(4).any(|w| w == b"_S4_"));
    assert_eq!(hide_s3(&mut dsdt), 0);
}

#[test]
fn declarations_as_methods_and_at_the_root_are_hidden_too() {
    for body in [
        &b"\x14\x08_S3_\x00\xA4\x00"[..],
        b"\x14\x48\x01\\_S3_\x00",
        b"\x08\\_S3_\x12\x02\x00",
    ] {
        let mut dsdt = table(body);
        assert_eq!(hide_s3(&mut dsdt), 1, "{body:?}");
        assert!(is_intact(&dsdt));
    }
}

#[test]
fn mere_mentions_of_the_name_stay() {
    // A reference, and a string.
    let mut dsdt = table(b"\x5B\x12\\_S3_\x00\x0D_S3_\x00");
    let before = dsdt.clone();
    assert_eq!(hide_s3(&mut dsdt), 0);
    assert_eq!(dsdt, before);
}

#[test]
fn a_machine_that_has_a_vmbus_device_is_recognized() {
    assert!(mentions_vmbus(&table(b"\x08_HID\x0DVMBus\x00")));
    assert!(mentions_vmbus(&table(b"\x08_HID\x0DVMBUS\x00")));
    assert!(!mentions_vmbus(&table(b"\x08_HID\x0DVMBusX\x00")));
}

#[test]
fn the_processor_block_is_found() {
    let cpu = |port: u32, len: u8| {
        let mut body = b"\x5B\x83\x0BCPU0\x00".to_vec();
        body.extend_from_slice(&port.to_le_bytes());
        body.push(len);
        processor_block(&table(&body))
    };
    assert_eq!(cpu(0x410, 6), Some(0x410));
    assert_eq!(cpu(0x410, 0), None);
    assert_eq!(cpu(0, 6), None);
    assert_eq!(cpu(0x1_0000, 6), None);
    assert_eq!(
        processor_block(&table(b"\x5B\x83\x0Bcpu0\x00\x10\x04\x00\x00\x06")),
        None
    );
}

proptest! {
    /// Searching survives any bytes, and hiding leaves an intact table intact.
    #[test]
    fn any_bytes_are_searched(body in prop::collection::vec(prop_oneof![
        any::<u8>(), Just(0x08), Just(0x12), Just(0x14), Just(b'_'), Just(b'S'), Just(b'3'), Just(b'5'), Just(0x5B), Just(0x83)
    ], 0..200)) {
        let mut dsdt = table(&body);
        let _ = (s5_types(&dsdt), processor_block(&dsdt), mentions_vmbus(&dsdt));
        hide_s3(&mut dsdt);
        prop_assert!(is_intact(&dsdt));
        prop_assert_eq!(hide_s3(&mut dsdt), 0);
    }

    /// Whatever surrounds it, a declared package is found.
    #[test]
    fn a_declared_package_is_found_anywhere(before in prop::collection::vec(0x80u8..0xC0, 0..50), a in any::<u8>(), b in any::<u8>()) {
        let mut body = before;
        body.extend_from_slice(b"\x08_S5_\x12\x07\x02\x0A");
        body.push(a);
        body.push(0x0A);
        body.push(b);
        prop_assert_eq!(s5_types(&table(&body)), Some(u16::from_le_bytes([a, b])));
    }
}
