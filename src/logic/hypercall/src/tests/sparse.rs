//! VP sets: whatever a caller names, only VPs that exist come out.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tlfs::call::{ClusterIpi, ClusterIpiEx, Flush, FlushEx, FlushFlags, IpiVector, VpSetHeader};

use super::*;

fn head(format: u64, valid_banks: u64) -> VpSetHeader {
    VpSetHeader {
        format,
        valid_banks,
    }
}

fn bytes(banks: &[u64]) -> Vec<u8> {
    banks.iter().flat_map(|bank| bank.to_le_bytes()).collect()
}

fn walk(set: VpSet<'_>, vps: u32) -> Vec<u32> {
    set.iter(vps).map(addr::VpIndex::get).collect()
}

#[test]
fn banks_lie_in_the_order_of_their_bits() {
    let banks = bytes(&[0b101, 1 << 63, 1]);
    let set = VpSet::new(&head(0, 1 << 63 | 0b110), &banks).unwrap();
    assert_eq!(walk(set, 4096), [64, 66, 191, 4032]);
    assert_eq!(walk(set, 4032), [64, 66, 191]);
    assert_eq!(walk(set, 66), [64]);
    assert_eq!(walk(set, 64), []);
}

#[test]
fn a_mask_and_all_stop_at_the_last_vp() {
    assert_eq!(walk(VpSet::of_mask(u64::MAX), 3), [0, 1, 2]);
    assert_eq!(walk(VpSet::of_mask(u64::MAX), 0), []);
    assert_eq!(walk(VpSet::of_mask(1 << 63 | 2), 1000), [1, 63]);
    assert_eq!(walk(VpSet::All, 65).len(), 65);
    // No set can name more than 4096.
    assert_eq!(walk(VpSet::All, u32::MAX).len(), 4096);
}

#[test]
fn a_set_that_contradicts_itself_is_refused() {
    let input = Err(HvError::INVALID_HYPERCALL_INPUT);
    let parameter = Err(HvError::INVALID_PARAMETER);
    assert_eq!(
        VpSet::new(&head(0, 1), &[]),
        input,
        "fewer banks than named"
    );
    assert_eq!(VpSet::new(&head(0, 1), &bytes(&[1, 1])), input, "more");
    assert_eq!(
        VpSet::new(&head(0, 0), &bytes(&[1])),
        input,
        "more than none"
    );
    assert_eq!(VpSet::new(&head(0, 1), &[0; 9]), input, "half a bank");
    assert_eq!(VpSet::new(&head(0, u64::MAX), &[0; 63 * 8]), input);
    assert_eq!(
        VpSet::new(&head(1, 0), &bytes(&[1])),
        input,
        "all, and banks"
    );
    assert_eq!(VpSet::new(&head(2, 0), &[]), parameter);
    assert_eq!(VpSet::new(&head(u64::MAX, 1), &bytes(&[1])), parameter);
    // The mask of a set of all means nothing.
    assert_eq!(VpSet::new(&head(1, u64::MAX), &[]), Ok(VpSet::All));
    assert_eq!(
        VpSet::new(&head(0, 0), &[]).map(|set| walk(set, 9)),
        Ok(std::vec![])
    );
}

#[test]
fn a_flush_for_all_processors_is_for_all_whatever_the_set_says() {
    let flags = FlushFlags::ALL_PROCESSORS;
    let plain = Flush {
        address_space: 0x1000,
        flags,
        vps: 0,
    };
    assert_eq!(
        FlushRequest::plain(&plain.encode()),
        Ok(FlushRequest {
            vps: VpSet::All,
            space: Some(0x1000),
            non_global_only: false
        })
    );
    let flags = FlushFlags::ALL_SPACES | FlushFlags::NON_GLOBAL_ONLY;
    let plain = Flush {
        flags,
        vps: 6,
        ..plain
    };
    assert_eq!(
        FlushRequest::plain(&plain.encode()),
        Ok(FlushRequest {
            vps: VpSet::of_mask(6),
            space: None,
            non_global_only: true
        })
    );
    let flags = FlushFlags::ALL_PROCESSORS;
    let extended = FlushEx {
        address_space: 0,
        flags,
        vps: head(0, 1),
    };
    let input = Err(HvError::INVALID_HYPERCALL_INPUT);
    assert_eq!(FlushRequest::extended(&extended.encode(), &[]), input);
    let banks = bytes(&[2]);
    let got = FlushRequest::extended(&extended.encode(), &banks);
    assert_eq!(got.map(|flush| flush.vps), Ok(VpSet::All));
    let extended = FlushEx {
        flags: FlushFlags::empty(),
        ..extended
    };
    let got = FlushRequest::extended(&extended.encode(), &banks);
    assert_eq!(got.map(|flush| walk(flush.vps, 9)), Ok(std::vec![1]));
}

#[test]
fn an_ipi_has_a_vector_and_a_set() {
    let vector = IpiVector::new(0x42).unwrap();
    let plain = ClusterIpi {
        vector,
        vps: 5,
        ..ClusterIpi::default()
    };
    let got = IpiRequest::plain(&plain.encode()).unwrap();
    assert_eq!((got.vector, walk(got.vps, 64)), (0x42, std::vec![0, 2]));
    let extended = ClusterIpiEx {
        vector,
        vps: head(0, 2),
        ..ClusterIpiEx::default()
    };
    let banks = bytes(&[5]);
    let got = IpiRequest::extended(&extended.encode(), &banks).unwrap();
    assert_eq!((got.vector, walk(got.vps, 99)), (0x42, std::vec![64, 66]));
}

proptest! {
    #[test]
    fn a_set_names_what_its_banks_say_and_nothing_that_is_not_there(
        valid in prop_oneof![any::<u64>(), 0u64..16],
        banks in proptest::collection::vec(prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)], 64),
        vps in prop_oneof![0u32..200, 0u32..5000, any::<u32>()],
    ) {
        let given = bytes(&banks[..valid.count_ones() as usize]);
        let set = VpSet::new(&head(0, valid), &given).unwrap();
        let mut expected = BTreeSet::new();
        for (bank, number) in banks.iter().zip((0..64u32).filter(|number| valid >> number & 1 != 0)) {
            expected.extend((0..64).filter(|bit| bank >> bit & 1 != 0).map(|bit| number * 64 + bit));
        }
        expected.retain(|vp| *vp < vps);
        prop_assert_eq!(walk(set, vps), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_make_a_set_or_an_error(
        header in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..4, 1 => any::<u8>()], 0..40),
        variable in proptest::collection::vec(any::<u8>(), 0..64),
        vps in any::<u32>(),
    ) {
        let flushes = [FlushRequest::plain(&header), FlushRequest::extended(&header, &variable)];
        for request in flushes.into_iter().flatten() {
            prop_assert!(walk(request.vps, vps).iter().all(|vp| *vp < vps));
        }
        let sends = [IpiRequest::plain(&header), IpiRequest::extended(&header, &variable)];
        for request in sends.into_iter().flatten() {
            prop_assert!(request.vector >= 0x10);
            prop_assert!(walk(request.vps, vps).iter().all(|vp| *vp < vps));
        }
    }
}
