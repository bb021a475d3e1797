//! Memory for page tables that keeps a history and can run out of frames.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use addr::Spa;
use paging::{Entry, Format, OutOfFrames, PageSize, TableMemory};

#[derive(Clone, Copy, Debug)]
pub enum Event {
    Alloc(u64),
    Store(u64, u64),
    Free,
}

#[derive(Clone, Default)]
pub struct Fake {
    pub frames: BTreeMap<u64, Box<[u64; 512]>>,
    next: u64,
    spare: Vec<u64>,
    /// Allocations that still succeed.
    pub budget: Option<u64>,
    pub history: Vec<Event>,
}

/// Frames lie high, so that every bit of the link between detached tables is exercised.
const FIRST_FRAME: u64 = 0x000A_5A5A_5A5A_5000;

impl Fake {
    pub fn slot(&self, entry: u64) -> u64 {
        assert_eq!(entry % 8, 0);
        self.frames
            .get(&(entry & !0xFFF))
            .expect("load outside a live table")[(entry & 0xFFF) as usize / 8]
    }

    fn set(&mut self, entry: u64, value: u64) {
        assert_eq!(entry % 8, 0);
        self.frames
            .get_mut(&(entry & !0xFFF))
            .expect("store outside a live table")[(entry & 0xFFF) as usize / 8] = value;
    }

    /// Carries one event of another memory's history out in this one.
    pub fn replay(&mut self, event: Event) {
        match event {
            Event::Alloc(frame) => {
                self.frames.insert(frame, Box::new([0; 512]));
            }
            Event::Store(at, value) => self.set(at, value),
            Event::Free => {}
        }
    }
}

impl TableMemory for Fake {
    fn load(&self, entry: Spa) -> u64 {
        self.slot(entry.get())
    }

    fn store(&mut self, entry: Spa, value: u64) {
        self.set(entry.get(), value);
        self.history.push(Event::Store(entry.get(), value));
    }

    fn update(&mut self, entry: Spa, clear: u64, set: u64) -> u64 {
        let old = self.slot(entry.get());
        self.store(entry, (old & !clear) | set);
        old
    }

    fn alloc(&mut self) -> Result<Spa, OutOfFrames> {
        if let Some(budget) = &mut self.budget {
            *budget = budget.checked_sub(1).ok_or(OutOfFrames)?;
        }
        let frame = self.spare.pop().unwrap_or_else(|| {
            self.next += 1;
            FIRST_FRAME + (self.next << 12)
        });
        self.frames.insert(frame, Box::new([0; 512]));
        self.history.push(Event::Alloc(frame));
        Ok(Spa::new(frame))
    }

    fn free(&mut self, table: Spa) {
        self.frames
            .remove(&table.get())
            .expect("free of a frame that is not live");
        self.spare.push(table.get());
        self.history.push(Event::Free);
    }
}

/// The sizes of leaves, from level 1 up.
pub const SIZES: [PageSize; 3] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];

pub fn leaf_size(level: u32) -> Option<PageSize> {
    SIZES.get((level as usize).checked_sub(1)?).copied()
}

/// What a processor finds for `address` if it starts at `table` of `level`: the frame and the low bits that
/// hold rights and type, with tables on the way recorded in `path`.
pub fn walk(
    format: Format,
    mem: &Fake,
    mut table: u64,
    mut level: u32,
    address: u64,
    mut path: Option<&mut Vec<(u64, u32)>>,
) -> Option<(u64, paging::Attributes)> {
    loop {
        if let Some(path) = &mut path {
            path.push((table, level));
        }
        let shift = 12 + 9 * (level - 1);
        let raw = mem.slot(table + ((address >> shift) & 511) * 8);
        match format.decode(raw, leaf_size(level)) {
            Entry::Empty => return None,
            Entry::Table(below) => (table, level) = (below.get(), level - 1),
            Entry::Leaf(spa, attributes) => {
                let offset = (1u64 << shift) - 1;
                return Some(((spa.get() | (address & offset)) & !0xFFF, attributes));
            }
        }
    }
}
