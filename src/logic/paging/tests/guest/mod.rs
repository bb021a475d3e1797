//! A guest's memory with page tables written by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use addr::{Gpa, Gva};
use paging::walk::{Access, Fault, GuestPhysical, PagingState, translate};
use x86::{cr0, cr4, efer};

/// Guest memory by 8-byte words; what was never written is absent.
#[derive(Default)]
pub struct Memory(pub BTreeMap<u64, u64>);

impl Memory {
    pub fn set(&mut self, at: u64, value: u64) {
        self.0.insert(at, value);
    }

    pub fn set32(&mut self, at: u64, value: u32) {
        let word = self.0.entry(at & !7).or_insert(0);
        let shift = (at & 4) * 8;
        *word = *word & !(0xFFFF_FFFF << shift) | u64::from(value) << shift;
    }
}

impl GuestPhysical for Memory {
    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        assert_eq!(gpa.get() % 8, 0);
        self.0.get(&gpa.get()).copied()
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        assert_eq!(gpa.get() % 4, 0);
        self.0
            .get(&(gpa.get() & !7))
            .map(|word| (word >> ((gpa.get() & 4) * 8)) as u32)
    }
}

pub const P: u64 = 1;
pub const W: u64 = 2;
pub const U: u64 = 4;
pub const PS: u64 = 0x80;
pub const NX: u64 = 1 << 63;

pub const LONG: PagingState = PagingState {
    cr0: cr0::PG | cr0::PE | cr0::WP,
    cr3: 0x1000,
    cr4: cr4::PAE,
    efer: efer::LMA | efer::LME | efer::NXE,
    rflags: 0,
    pkru: 0,
    pkrs: 0,
    cpl: 0,
    phys_bits: 46,
    has_gib_pages: true,
};

/// Four levels for 0x0000_7F80_4020_1000 and up, with `leaf` in the lowest.
pub const ADDRESS: u64 = 0x7F << 39 | 1 << 30 | 1 << 21 | 1 << 12;

pub fn four_levels(leaf: u64) -> Memory {
    let mut m = Memory::default();
    m.set(0x1000 + 0x7F * 8, 0x2000 | P | W | U);
    m.set(0x2008, 0x3000 | P | W | U);
    m.set(0x3008, 0x4000 | P | W | U);
    m.set(0x4008, leaf);
    m
}

pub fn gpa(state: &PagingState, m: &Memory, at: u64) -> u64 {
    translate(state, m, Gva::new(at), Access::Read)
        .unwrap()
        .gpa
        .get()
}

pub fn code(state: &PagingState, m: &Memory, at: u64, access: Access) -> Option<u32> {
    match translate(state, m, Gva::new(at), access) {
        Ok(_) => None,
        Err(Fault::Page { error_code }) => Some(error_code),
        Err(other) => panic!("{other:?}"),
    }
}
