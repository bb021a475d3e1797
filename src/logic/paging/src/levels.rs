//! The depth of a tree.

/// Depth of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48 address bits.
    Four,
    /// 57 address bits.
    Five,
}

impl Levels {
    /// The depth with `count` levels, if it is 4 or 5.
    pub const fn from_count(count: u32) -> Option<Self> {
        match count {
            4 => Some(Self::Four),
            5 => Some(Self::Five),
            _ => None,
        }
    }

    /// 4 or 5.
    pub const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }
}
