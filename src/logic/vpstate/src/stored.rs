//! Registers that are only remembered for the guest and the parent to read back.

use tlfs::register::RegisterName;

/// The registers of one VP that no hardware holds and nothing depends on. 240 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// IA32_MTRR_DEF_TYPE. The memory of a partition is write-back whatever its ranges say.
    mtrr_default: u64,
    mtrr_base: [u64; 8],
    mtrr_mask: [u64; 8],
    mtrr_fixed: [u64; 11],
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
}

/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write combining.
pub const MTRR_CAP: u64 = 0x508;
/// IA32_MISC_ENABLE at reset: fast strings; no branch trace store, no event sampling.
const MISC_ENABLE: u64 = 1 | 1 << 11 | 1 << 12;

impl Default for Stored {
    fn default() -> Self {
        Self::new()
    }
}

impl Stored {
    /// The state at power-up: memory type ranges off.
    pub const fn new() -> Self {
        Self {
            mtrr_default: 0,
            mtrr_base: [0; 8],
            mtrr_mask: [0; 8],
            mtrr_fixed: [0; 11],
            tsc_adjust: 0,
            misc_enable: MISC_ENABLE,
        }
    }

    /// The register called `name`, if it is one of these.
    pub fn slot(&mut self, name: RegisterName) -> Option<&mut u64> {
        match name {
            RegisterName::MTRR_DEF_TYPE => return Some(&mut self.mtrr_default),
            RegisterName::TSC_ADJUST => return Some(&mut self.tsc_adjust),
            RegisterName::MISC_ENABLE => return Some(&mut self.misc_enable),
            _ => {}
        }
        let arrays: [(RegisterName, &mut [u64]); 3] = [
            (RegisterName::MTRR_PHYS_BASE0, &mut self.mtrr_base),
            (RegisterName::MTRR_PHYS_MASK0, &mut self.mtrr_mask),
            (RegisterName::MTRR_FIX_64K_00000, &mut self.mtrr_fixed),
        ];
        arrays
            .into_iter()
            .find_map(|(first, slots)| slots.get_mut(name.index_from(first, slots.len() as u32)?))
    }
}

const _: () = assert!(size_of::<Stored>() == 240);
