//! Which VPs a call means (TLFS, "Sparse Virtual Processor Set"), and what the flush and IPI calls ask for.
//!
//! A set may name VPs that do not exist: guests name those that they believe could come. They are passed over, as
//! Linux expects; the number of VPs bounds the walk, whatever the set says.

use addr::VpIndex;
use tlfs::HvError;
use tlfs::call::{ClusterIpi, ClusterIpiEx, Flush, FlushEx, FlushFlags, VpSetHeader};

/// A set of VPs of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpSet<'a> {
    /// All of them.
    All,
    /// Banks of 64 VPs.
    Banks {
        /// Bit n: VPs 64 n to 64 n + 63 have a bank.
        valid: u64,
        /// The banks, lowest first.
        banks: Banks<'a>,
    },
}

/// Where the banks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banks<'a> {
    /// The first one, and there is no other.
    One(u64),
    /// As they lie in the variable header.
    Many(&'a [[u8; 8]]),
}

impl<'a> VpSet<'a> {
    const SPARSE: u64 = 0;
    const ALL: u64 = 1;

    /// Bit n of `mask` is VP n.
    pub const fn of_mask(mask: u64) -> Self {
        Self::Banks {
            valid: 1,
            banks: Banks::One(mask),
        }
    }

    /// The set with this head and these banks.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] for a format that there is not, and [`HvError::INVALID_HYPERCALL_INPUT`]
    /// when there are more or fewer banks than the head says.
    pub fn new(head: &VpSetHeader, variable_header: &'a [u8]) -> Result<Self, HvError> {
        let (banks, rest) = variable_header.as_chunks();
        let (set, wanted) = match head.format {
            Self::ALL => (Self::All, 0),
            Self::SPARSE => {
                let valid = head.valid_banks;
                let banks = Banks::Many(banks);
                (Self::Banks { valid, banks }, valid.count_ones() as usize)
            }
            _ => return Err(HvError::INVALID_PARAMETER),
        };
        if banks.len() != wanted || !rest.is_empty() {
            return Err(HvError::INVALID_HYPERCALL_INPUT);
        }
        Ok(set)
    }

    /// The bank of VPs 64 `number` to 64 `number` + 63; `number` is at most 63.
    fn bank(&self, number: u32) -> u64 {
        match *self {
            Self::All => u64::MAX,
            Self::Banks { valid, .. } if valid >> number & 1 == 0 => 0,
            Self::Banks { valid, banks } => match banks {
                Banks::One(mask) => mask,
                Banks::Many(banks) => {
                    let before = (valid & ((1 << number) - 1)).count_ones() as usize;
                    banks
                        .get(before)
                        .map_or(0, |bank| u64::from_le_bytes(*bank))
                }
            },
        }
    }

    /// The VPs of the set in a partition that has `vps` of them, in ascending order.
    pub const fn iter(self, vps: u32) -> VpSetIter<'a> {
        VpSetIter {
            set: self,
            vps,
            next_bank: 0,
            base: 0,
            bits: 0,
        }
    }
}

/// The walk of [`VpSet::iter`].
#[derive(Clone, Debug)]
pub struct VpSetIter<'a> {
    set: VpSet<'a>,
    vps: u32,
    next_bank: u32,
    /// First VP of the bank being walked.
    base: u32,
    /// What is left of that bank.
    bits: u64,
}

impl Iterator for VpSetIter<'_> {
    type Item = VpIndex;

    fn next(&mut self) -> Option<VpIndex> {
        while self.bits == 0 {
            // 64 banks of 64 are all that a set can name.
            if self.next_bank >= 64 || self.next_bank * 64 >= self.vps {
                return None;
            }
            self.base = self.next_bank * 64;
            let exist = match self.vps - self.base {
                left @ 0..=63 => (1 << left) - 1,
                _ => u64::MAX,
            };
            self.bits = self.set.bank(self.next_bank) & exist;
            self.next_bank += 1;
        }
        let vp = self.base + self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(VpIndex::new(vp))
    }
}

/// What any of the four flush calls asks for. The ranges of the list forms only narrow what may be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushRequest<'a> {
    /// On whose processors.
    pub vps: VpSet<'a>,
    /// CR3 without PCID; none for all address spaces.
    pub space: Option<u64>,
    /// Global translations may stay.
    pub non_global_only: bool,
}

impl<'a> FlushRequest<'a> {
    /// From the header of `HvCallFlushVirtualAddressSpace` or `HvCallFlushVirtualAddressList`.
    ///
    /// # Errors
    /// As [`Flush::decode`].
    pub fn plain(header: &[u8]) -> Result<Self, HvError> {
        let input = Flush::decode(header)?;
        Ok(Self::new(
            input.flags,
            input.address_space,
            VpSet::of_mask(input.vps),
        ))
    }

    /// From the headers of `HvCallFlushVirtualAddressSpaceEx` or `HvCallFlushVirtualAddressListEx`.
    ///
    /// # Errors
    /// As [`FlushEx::decode`] and [`VpSet::new`]; the set must be sound also where the flags say all VPs.
    pub fn extended(header: &[u8], variable_header: &'a [u8]) -> Result<Self, HvError> {
        let input = FlushEx::decode(header)?;
        let vps = VpSet::new(&input.vps, variable_header)?;
        Ok(Self::new(input.flags, input.address_space, vps))
    }

    fn new(flags: FlushFlags, space: u64, vps: VpSet<'a>) -> Self {
        let all = flags.contains(FlushFlags::ALL_PROCESSORS);
        Self {
            vps: if all { VpSet::All } else { vps },
            space: (!flags.contains(FlushFlags::ALL_SPACES)).then_some(space),
            non_global_only: flags.contains(FlushFlags::NON_GLOBAL_ONLY),
        }
    }
}

/// What either of the IPI calls asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpiRequest<'a> {
    /// To whom.
    pub vps: VpSet<'a>,
    /// 0x10 to 0xFF.
    pub vector: u8,
}

impl<'a> IpiRequest<'a> {
    /// From the input of `HvCallSendSyntheticClusterIpi`.
    ///
    /// # Errors
    /// As [`ClusterIpi::decode`].
    pub fn plain(header: &[u8]) -> Result<Self, HvError> {
        let input = ClusterIpi::decode(header)?;
        Ok(Self {
            vps: VpSet::of_mask(input.vps),
            vector: input.vector.get(),
        })
    }

    /// From the headers of `HvCallSendSyntheticClusterIpiEx`.
    ///
    /// # Errors
    /// As [`ClusterIpiEx::decode`] and [`VpSet::new`].
    pub fn extended(header: &[u8], variable_header: &'a [u8]) -> Result<Self, HvError> {
        let input = ClusterIpiEx::decode(header)?;
        Ok(Self {
            vps: VpSet::new(&input.vps, variable_header)?,
            vector: input.vector.get(),
        })
    }
}
