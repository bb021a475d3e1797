//! The bits of entries: the hypervisor's own tables, AMD's nested tables and Intel's extended tables.

use addr::Spa;

use crate::attributes::{Attributes, Backing, MemoryType, PageSize};

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped here.
    Empty,
    /// A table one level down.
    Table(Spa),
    /// A page of the level's size.
    Leaf(Spa, Attributes),
}

/// How one kind of table writes its entries. An entry of value 0 is empty in every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables of the hypervisor's own address space (Intel SDM vol. 3A, "4-Level Paging and 5-Level Paging").
    Host,
    /// AMD's nested tables (AMD APM vol. 2, "Nested Paging"). Every guest access counts as a user access there,
    /// so U is set throughout. The memory type is an index into the host's PAT.
    Npt,
    /// Intel's extended tables (Intel SDM vol. 3C, "The Extended Page Table Mechanism (EPT)"). Accessed and dirty
    /// flags mean something where the EPT pointer switches them on; "ignore PAT" stays 0, so that the guest's PAT
    /// combines with the type in the entry.
    Ept,
}

/// Physical address bits 51:12.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Marks a page without access. Ignored by the processor in every format, and meaningless in a present entry.
const NO_ACCESS: u64 = 1 << 11;
/// Marks [`Backing::Counted`] and [`Backing::Overlay`]. Ignored in EPT leaves; in legacy ones they are part of the
/// protection key, which CR4.PKE of the hypervisor, being 0, keeps from use.
const COUNTED: u64 = 1 << 59;
const OVERLAY: u64 = 1 << 62;
/// A leaf in a table above the lowest level.
const LARGE: u64 = 1 << 7;

/// The value that IA32_PAT must have while [`Format::Host`] or [`Format::Npt`] entries are walked: entries 0 to 3 as after
/// reset (WB, WT, UC-, UC), 4 is WC, 5 is WP, 6 and 7 as after reset (UC-, UC).
pub const HOST_PAT: u64 = 0x0007_0501_0007_0406;

const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;
const PAT_SMALL: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;

/// Index into [`HOST_PAT`], spread over PWT, PCD and the given PAT bit.
const fn pat_bits(memory_type: MemoryType, pat: u64) -> u64 {
    match memory_type {
        MemoryType::WriteBack => 0,
        MemoryType::WriteThrough => PWT,
        MemoryType::Uncacheable => PCD | PWT,
        MemoryType::WriteCombining => pat,
        MemoryType::WriteProtected => pat | PWT,
    }
}

const fn pat_type(entry: u64, pat: u64) -> MemoryType {
    match (entry & pat != 0, entry & PCD != 0, entry & PWT != 0) {
        (false, false, false) => MemoryType::WriteBack,
        (false, false, true) => MemoryType::WriteThrough,
        (true, false, false) => MemoryType::WriteCombining,
        (true, false, true) => MemoryType::WriteProtected,
        // UC- is as good as UC where no MTRR says WC.
        (_, true, _) => MemoryType::Uncacheable,
    }
}

const fn backing_bits(backing: Backing) -> u64 {
    match backing {
        Backing::Plain => 0,
        Backing::Counted => COUNTED,
        Backing::Overlay => OVERLAY,
    }
}

const fn backing_of(entry: u64) -> Backing {
    match (entry & COUNTED != 0, entry & OVERLAY != 0) {
        (_, true) => Backing::Overlay,
        (true, false) => Backing::Counted,
        (false, false) => Backing::Plain,
    }
}

/// Fields that the host's and AMD's nested leaves share.
fn legacy_leaf(spa: Spa, size: PageSize, attributes: Attributes) -> u64 {
    let (pat, large) = match size {
        PageSize::Size4K => (PAT_SMALL, 0),
        PageSize::Size2M | PageSize::Size1G => (PAT_LARGE, LARGE),
    };
    let mut entry = (spa.get() & ADDRESS) | large | pat_bits(attributes.memory_type, pat);
    entry |= backing_bits(attributes.backing);
    entry |= if attributes.read {
        P | A | D
    } else {
        NO_ACCESS
    };
    if attributes.write {
        entry |= W;
    }
    if !attributes.execute {
        entry |= NX;
    }
    entry
}

fn legacy_decode(entry: u64, size: Option<PageSize>) -> Entry {
    if entry & (P | NO_ACCESS) == 0 {
        return Entry::Empty;
    }
    let present = entry & P != 0;
    let (size, pat) = match size {
        Some(PageSize::Size4K) => (PageSize::Size4K, PAT_SMALL),
        Some(size) if entry & LARGE != 0 => (size, PAT_LARGE),
        _ if present => return Entry::Table(Spa::new(entry & ADDRESS)),
        _ => return Entry::Empty,
    };
    Entry::Leaf(
        Spa::new(entry & ADDRESS & !(size.bytes() - 1)),
        Attributes {
            read: present,
            write: present && entry & W != 0,
            execute: present && entry & NX == 0,
            user: entry & U != 0,
            global: entry & G != 0,
            memory_type: pat_type(entry, pat),
            backing: backing_of(entry),
        },
    )
}

const EPT_R: u64 = 1 << 0;
const EPT_W: u64 = 1 << 1;
const EPT_X: u64 = 1 << 2;
const EPT_RIGHTS: u64 = EPT_R | EPT_W | EPT_X;
const EPT_TYPE_SHIFT: u32 = 3;
const EPT_A: u64 = 1 << 8;
const EPT_D: u64 = 1 << 9;

fn ept_leaf(spa: Spa, size: PageSize, attributes: Attributes) -> u64 {
    let mut entry = (spa.get() & ADDRESS) | ((attributes.memory_type as u64) << EPT_TYPE_SHIFT);
    entry |= backing_bits(attributes.backing);
    if size != PageSize::Size4K {
        entry |= LARGE;
    }
    if attributes.read {
        entry |= EPT_R | EPT_A | EPT_D;
    } else {
        entry |= NO_ACCESS;
    }
    if attributes.write {
        entry |= EPT_W;
    }
    if attributes.execute {
        entry |= EPT_X;
    }
    entry
}

fn ept_decode(entry: u64, size: Option<PageSize>) -> Entry {
    if entry & (EPT_RIGHTS | NO_ACCESS) == 0 {
        return Entry::Empty;
    }
    let present = entry & EPT_RIGHTS != 0;
    let size = match size {
        Some(PageSize::Size4K) => PageSize::Size4K,
        Some(size) if entry & LARGE != 0 => size,
        _ if present => return Entry::Table(Spa::new(entry & ADDRESS)),
        _ => return Entry::Empty,
    };
    let number = (entry >> EPT_TYPE_SHIFT & 7) as u8;
    Entry::Leaf(
        Spa::new(entry & ADDRESS & !(size.bytes() - 1)),
        Attributes {
            read: entry & EPT_R != 0,
            write: entry & EPT_W != 0,
            execute: entry & EPT_X != 0,
            user: false,
            global: false,
            memory_type: MemoryType::from_number(number).unwrap_or(MemoryType::Uncacheable),
            backing: backing_of(entry),
        },
    )
}

impl Format {
    /// Whether addresses are virtual: sign-extended, in two halves. Otherwise they count from 0.
    pub(crate) const fn is_virtual(self) -> bool {
        matches!(self, Self::Host)
    }

    /// Whether an entry decides the memory type; otherwise the processor combines it with the MTRRs.
    pub const fn holds_memory_types(self) -> bool {
        matches!(self, Self::Ept)
    }

    /// Set in a leaf by the processor, where it does so, when the page is used. Preset in a new leaf.
    pub const fn accessed(self) -> u64 {
        match self {
            Self::Host | Self::Npt => A,
            Self::Ept => EPT_A,
        }
    }

    /// Set in a leaf by the processor, where it does so, when the page is written. Preset in a new leaf. In one
    /// without access it tells that the page may have been written before it lost its access.
    pub const fn dirty(self) -> u64 {
        match self {
            Self::Host | Self::Npt => D,
            Self::Ept => EPT_D,
        }
    }

    /// An entry that maps `size` bytes at `spa`, which is aligned to `size`.
    pub fn leaf(self, spa: Spa, size: PageSize, attributes: Attributes) -> u64 {
        match self {
            Self::Host => {
                let mut entry = legacy_leaf(spa, size, attributes);
                if attributes.user {
                    entry |= U;
                }
                if attributes.global {
                    entry |= G;
                }
                entry
            }
            Self::Npt => legacy_leaf(spa, size, attributes) | U,
            Self::Ept => ept_leaf(spa, size, attributes),
        }
    }

    /// An entry that names a table.
    pub const fn table(self, table: Spa) -> u64 {
        match self {
            // The leaf decides; U is the intersection over the levels, so it must be set above a user page.
            Self::Host | Self::Npt => (table.get() & ADDRESS) | P | W | U | A,
            Self::Ept => (table.get() & ADDRESS) | EPT_RIGHTS,
        }
    }

    /// Reads an entry of a table whose leaves have `size`, or which has no leaves.
    pub fn decode(self, entry: u64, size: Option<PageSize>) -> Entry {
        match self {
            Self::Host => legacy_decode(entry, size),
            Self::Npt => match legacy_decode(entry, size) {
                Entry::Leaf(spa, attributes) => Entry::Leaf(spa, self.keep(attributes)),
                other => other,
            },
            Self::Ept => ept_decode(entry, size),
        }
    }

    /// Whether a processor can use, and so cache, this entry.
    pub const fn is_present(self, entry: u64) -> bool {
        match self {
            Self::Host | Self::Npt => entry & P != 0,
            Self::Ept => entry & EPT_RIGHTS != 0,
        }
    }

    /// The attributes without those that the format does not hold: what `decode` gives back of `leaf`.
    pub const fn keep(self, attributes: Attributes) -> Attributes {
        match self {
            Self::Host => attributes,
            Self::Npt | Self::Ept => Attributes {
                user: false,
                global: false,
                ..attributes
            },
        }
    }
}
