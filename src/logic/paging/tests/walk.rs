//! The walker against tables written by hand, in every paging mode.

mod guest;

use addr::{Gpa, Gva};
use guest::{ADDRESS, LONG, Memory, NX, P, PS, U, W, code, four_levels, gpa};
use paging::walk::{
    Access, Fault, GuestPhysical, PagingState, fetch, fetch_address, pf, translate,
};
use proptest::prelude::*;
use x86::{Segment, cr0, cr4, efer};

#[test]
fn without_paging_addresses_stay() {
    let state = PagingState {
        cr0: cr0::PE,
        ..LONG
    };
    assert_eq!(gpa(&state, &Memory::default(), 0xFEE0_0030), 0xFEE0_0030);
}

#[test]
fn four_levels_and_each_page_size() {
    let mut m = four_levels(0x2AAA_5555_5000 | P);
    let found = translate(&LONG, &m, Gva::new(ADDRESS | 0x123), Access::Execute).unwrap();
    assert_eq!(found.gpa, Gpa::new(0x2AAA_5555_5123));
    assert_eq!(
        (
            found.page_bytes,
            found.user,
            found.writable,
            found.executable
        ),
        (4096, false, false, true)
    );
    m.set(0x3008, 0x8060_0000 | P | PS);
    assert_eq!(gpa(&LONG, &m, ADDRESS | 0x123), 0x8060_1123);
    m.set(0x2008, 0x8_4000_0000 | P | PS);
    assert_eq!(gpa(&LONG, &m, ADDRESS | 0x123), 0x8_4020_1123);
    let small = PagingState {
        has_gib_pages: false,
        ..LONG
    };
    assert_eq!(
        code(&small, &m, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
    let reserved = Some(pf::PRESENT | pf::RESERVED);
    m.set(0x2008, 0x8_4000_2000 | P | PS);
    assert_eq!(code(&LONG, &m, ADDRESS, Access::Read), reserved);
    // Bit 12 of a large page is PAT, not address.
    m.set(0x2008, 0x8_4000_1000 | P | PS);
    assert_eq!(gpa(&LONG, &m, ADDRESS | 0x123), 0x8_4020_1123);
    m.set(0x2008, 0x3000 | P);
    m.set(0x3008, 0x8060_2000 | P | PS);
    assert_eq!(code(&LONG, &m, ADDRESS, Access::Read), reserved);
    // A page size bit in the top level is reserved.
    m.set(0x1000 + 0x7F * 8, 0x2000 | P | PS);
    assert_eq!(
        code(&LONG, &m, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
}

#[test]
fn five_levels() {
    let state = PagingState {
        cr3: 0x9000,
        cr4: cr4::PAE | cr4::LA57,
        ..LONG
    };
    let mut m = four_levels(0x5000 | P | W | U);
    m.set(0x9000 + 0x101 * 8, 0x1000 | P | W | U);
    let at = 0xFF01_0000_0000_0000 | ADDRESS;
    assert_eq!(gpa(&state, &m, at), 0x5000);
    assert_eq!(
        translate(&state, &m, Gva::new(0x0100_0000_0000_0000), Access::Read),
        Err(Fault::NonCanonical)
    );
}

#[test]
fn addresses_that_are_not_canonical_fault_before_any_read() {
    for at in [1 << 47, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63] {
        let found = translate(&LONG, &Memory::default(), Gva::new(at), Access::Read);
        assert_eq!(found, Err(Fault::NonCanonical));
    }
}

#[test]
fn a_table_without_memory_is_named() {
    let mut m = four_levels(0);
    m.set(0x2008, 0x7_7000 | P);
    let found = translate(&LONG, &m, Gva::new(ADDRESS), Access::Read);
    assert_eq!(found, Err(Fault::NoTable(Gpa::new(0x7_7008))));
}

#[test]
fn pae() {
    let state = PagingState {
        efer: efer::NXE,
        cr3: 0x1020,
        ..LONG
    };
    let mut m = Memory::default();
    // The table of four sits at a multiple of 32.
    m.set(0x1038, 0x2000 | P);
    m.set(0x2000 + 0x1F7 * 8, 0x3000 | P | W | U);
    m.set(0x3000, 0x1_FEE0_0000 | P | W | NX);
    assert_eq!(gpa(&state, &m, 0xFEE0_0030), 0x1_FEE0_0030);
    assert_eq!(
        code(&state, &m, 0xFEE0_0000, Access::Execute),
        Some(pf::PRESENT | pf::FETCH)
    );
    m.set(0x2000 + 0x1F7 * 8, 0xFEE0_0000 | P | W | PS);
    assert_eq!(gpa(&state, &m, 0xFEE1_2345), 0xFEE1_2345);
    // What an emulated processor leaves in the table of four.
    m.set(0x1038, 0x2000 | P | 1 << 5);
    assert_eq!(gpa(&state, &m, 0xFEE1_2345), 0xFEE1_2345);
    m.set(0x2000 + 0x1F7 * 8, 0xFEE0_0000 | P | W | PS | 1 << 52);
    assert_eq!(
        code(&state, &m, 0xFEE0_0000, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
    m.set(0x1038, 0x2000 | P | W);
    assert_eq!(
        code(&state, &m, 0xFEE0_0000, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
}

#[test]
fn two_levels_of_32_bits() {
    let state = PagingState {
        efer: 0,
        cr4: 0,
        cr3: 0x1000,
        ..LONG
    };
    let mut m = Memory::default();
    m.set32(0x1000 + 0x3FB * 4, 0x2007);
    m.set32(0x2000 + 0x201 * 4, 0xFEE0_0003);
    assert_eq!(gpa(&state, &m, 0xFEE0_1030), 0xFEE0_0030);
    // Address bits 63:32 do not count here.
    assert_eq!(gpa(&state, &m, 0x1_FEE0_1030), 0xFEE0_0030);
    // Without PSE the page size bit is ignored.
    m.set32(0x1000 + 0x3FB * 4, 0x2087);
    assert_eq!(gpa(&state, &m, 0xFEE0_1030), 0xFEE0_0030);
    let pse = PagingState {
        cr4: cr4::PSE,
        ..state
    };
    m.set32(0x1000 + 0x3FB * 4, 0x8000_0000 | 0x12 << 13 | 0x83);
    let found = translate(&pse, &m, Gva::new(0xFEE1_2345), Access::Read).unwrap();
    assert_eq!(
        (found.gpa.get(), found.page_bytes),
        (0x12_8000_0000 | 0x21_2345, 4 << 20)
    );
    let narrow = PagingState {
        phys_bits: 32,
        ..pse
    };
    assert_eq!(
        code(&narrow, &m, 0xFEE1_2345, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
    m.set32(0x1000 + 0x3FB * 4, 0x8000_0000 | 1 << 21 | 0x83);
    assert_eq!(
        code(&pse, &m, 0xFEE1_2345, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );
    // No NX in this mode, so the fetch bit only comes with SMEP.
    m.set32(0x1000 + 0x3FB * 4, 0);
    assert_eq!(code(&pse, &m, 0xFEE1_2345, Access::Execute), Some(0));
    let smep = PagingState {
        cr4: cr4::PSE | cr4::SMEP,
        ..state
    };
    assert_eq!(
        code(&smep, &m, 0xFEE1_2345, Access::Execute),
        Some(pf::FETCH)
    );
}

#[test]
fn where_instructions_are_fetched() {
    let segment = |base, attributes| Segment {
        base,
        attributes,
        ..Segment::default()
    };
    let long = segment(0x1000, Segment::LONG);
    assert_eq!(
        fetch_address(&long, 0xFFFF_8000_0000_0010, efer::LMA).get(),
        0xFFFF_8000_0000_0010
    );
    assert_eq!(fetch_address(&long, 0x10, 0).get(), 0x1010);
    assert_eq!(
        fetch_address(&segment(0xFFFF_0000, 0), 0xFFF0, 0).get(),
        0xFFFF_FFF0
    );
    assert_eq!(
        fetch_address(&segment(0xFFFF_0000, 0), 0x1_0000, efer::LMA).get(),
        0
    );
}

#[test]
fn instructions_are_fetched_across_pages() {
    let mut m = four_levels(0x5000 | P);
    m.set(0x4010, 0x7_9000 | P);
    m.set(0x5FF0, 0x0706_0504_0302_0100);
    m.set(0x5FF8, 0x0F0E_0D0C_0B0A_0908);
    m.set(0x7_9000, 0x1716_1514_1312_1110);
    let cs = Segment {
        attributes: Segment::LONG,
        ..Segment::default()
    };
    let get = |m: &Memory, offset: u64, len: usize| {
        let mut bytes = vec![0xEE; len];
        fetch(&LONG, m, &cs, ADDRESS + offset, &mut bytes).map(|count| {
            bytes.truncate(count);
            bytes
        })
    };
    assert_eq!(get(&m, 0xFF3, 4), Ok(vec![3, 4, 5, 6]));
    assert_eq!(get(&m, 0xFF3, 15), Ok((3..18).collect()));
    assert_eq!(get(&m, 0xFFF, 9), Ok((15..24).collect()));
    // What lies behind an absent page or absent memory is left out.
    m.set(0x4010, 0);
    assert_eq!(get(&m, 0xFF9, 15), Ok((9..16).collect()));
    assert_eq!(get(&m, 0xFF1, 0), Ok(vec![]));
    assert_eq!(
        get(&m, 0x1000, 15),
        Err(Fault::Page {
            error_code: pf::FETCH
        })
    );
    assert_eq!(get(&m, 0xFE0, 15), Err(Fault::NoTable(Gpa::new(0x5FE0))));
    let no_execute = four_levels(0x5000 | P | NX);
    assert_eq!(
        get(&no_execute, 0, 15),
        Err(Fault::Page {
            error_code: pf::PRESENT | pf::FETCH
        })
    );
}

#[test]
fn instructions_wrap_at_4_gib_outside_64_bit_code() {
    let mut m = Memory::default();
    m.set(0xFFFF_FFF8, 0x0706_0504_0302_0100);
    m.set(0, 0x0F0E_0D0C_0B0A_0908);
    let cs = Segment {
        base: 0xFFFF_0000,
        ..Segment::default()
    };
    let state = PagingState {
        cr0: 0,
        efer: 0,
        ..LONG
    };
    let mut bytes = [0; 15];
    assert_eq!(fetch(&state, &m, &cs, 0xFFFE, &mut bytes), Ok(10));
    assert_eq!(bytes[..10], [6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
}

/// Every read gives the same value, so tables lead anywhere, themselves included.
struct Everywhere(u64);

impl GuestPhysical for Everywhere {
    fn read_u64(&self, _: Gpa) -> Option<u64> {
        Some(self.0)
    }
    fn read_u32(&self, _: Gpa) -> Option<u32> {
        Some(self.0 as u32)
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        cr0 in any::<u64>(), cr3 in any::<u64>(), cr4 in any::<u64>(), efer in any::<u64>(),
        keys in any::<(u32, u32)>(), cpl in any::<u8>(), phys_bits in any::<u8>(), has_gib_pages in any::<bool>(),
        entry in any::<u64>(), at in any::<u64>(),
        access in prop::sample::select(&[Access::Read, Access::Write, Access::Execute, Access::ImplicitRead][..]),
    ) {
        let state = PagingState {
            cr0: cr0 | cr0::PG, cr3, cr4, efer, rflags: entry, pkru: keys.0, pkrs: keys.1, cpl, phys_bits, has_gib_pages,
        };
        let signed = ((at << 16) as i64 >> 16) as u64;
        if let Ok(found) = translate(&state, &Everywhere(entry | 1), Gva::new(signed), access) {
            prop_assert!(found.page_bytes.is_power_of_two());
            prop_assert_eq!(found.gpa.get() & 0xFFF, signed & 0xFFF);
        }
    }
}
