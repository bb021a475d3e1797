//! What a mapping says besides the address.

/// Memory types, numbered as MTRRs, the PAT and EPT entries number them
/// (Intel SDM vol. 3A, "Methods of Caching Available").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MemoryType {
    Uncacheable = 0,
    WriteCombining = 1,
    WriteThrough = 4,
    WriteProtected = 5,
    WriteBack = 6,
}

impl MemoryType {
    /// The type numbered `value`, or `None` for a reserved number.
    pub const fn from_number(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Uncacheable,
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            6 => Self::WriteBack,
            _ => return None,
        })
    }
}

/// What the frame behind a leaf is to the owner of the tables. Kept in bits that processors ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// Nothing to keep in mind.
    Plain,
    /// The leaf holds a use of each of its frames: edits tell when it goes ([`Event::Released`](crate::Event)).
    Counted,
    /// A frame that lies over the page until it is taken away: 4 KiB, and edits with
    /// [`OverOverlays::Below`](crate::OverOverlays) leave it in place.
    Overlay,
}

/// Rights and type of a mapping.
///
/// All three rights off is a mapping without access: the tables remember it, every access to it faults. A
/// mapping that may be written or executed but not read cannot be expressed on every processor and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// Instructions may be fetched from it.
    pub execute: bool,
    /// Host format only: user mode may use it. Second-level formats drop it.
    pub user: bool,
    /// Host format only: the translation survives a load of CR3. Second-level formats drop it.
    pub global: bool,
    /// Memory type.
    pub memory_type: MemoryType,
    /// What is behind it; [`Backing::Plain`] where there is no access.
    pub backing: Backing,
}

impl Attributes {
    /// Readable and executable, write-back.
    pub const RX: Self = Self {
        read: true,
        execute: true,
        ..Self::NONE
    };
    /// Readable and writable, write-back.
    pub const RW: Self = Self {
        read: true,
        write: true,
        ..Self::NONE
    };
    /// Readable, write-back.
    pub const RO: Self = Self {
        read: true,
        ..Self::NONE
    };
    /// Readable, writable and executable, write-back: a guest's RAM.
    pub const RWX: Self = Self {
        read: true,
        write: true,
        execute: true,
        ..Self::NONE
    };
    /// Mapped without access, write-back.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        execute: false,
        user: false,
        global: false,
        memory_type: MemoryType::WriteBack,
        backing: Backing::Plain,
    };

    /// The same rights with another memory type.
    #[must_use]
    pub const fn with_type(self, memory_type: MemoryType) -> Self {
        Self {
            memory_type,
            ..self
        }
    }

    /// The same rights with another backing.
    #[must_use]
    pub const fn with_backing(self, backing: Backing) -> Self {
        Self { backing, ..self }
    }

    /// Whether every format can hold these rights.
    pub(crate) const fn is_expressible(self) -> bool {
        self.read || !(self.write || self.execute)
    }
}

/// Size of a leaf. The order is the order of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PageSize {
    Size4K,
    Size2M,
    Size1G,
}

impl PageSize {
    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        span_bytes(self.level())
    }

    /// Level of the tables whose entries map this size.
    pub(crate) const fn level(self) -> u32 {
        match self {
            Self::Size4K => 1,
            Self::Size2M => 2,
            Self::Size1G => 3,
        }
    }

    pub(crate) const fn from_level(level: u32) -> Option<Self> {
        match level {
            1 => Some(Self::Size4K),
            2 => Some(Self::Size2M),
            3 => Some(Self::Size1G),
            _ => None,
        }
    }
}

/// Bytes of address space under one entry of a table at `level`, 1 to 5.
pub(crate) const fn span_bytes(level: u32) -> u64 {
    1 << shift(level)
}

/// Number of address bits below the index of a table at `level`, 1 to 5.
pub(crate) const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}
