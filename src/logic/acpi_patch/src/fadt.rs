//! The fixed hardware ("Fixed ACPI Description Table").

use bootinfo::AcpiRegister;

use crate::read::{u8_at, u16_at, u32_at, u64_at};
use crate::table::is_intact;

const FLAG_TIMER_32: u32 = 1 << 8;
const FLAG_RESET: u32 = 1 << 10;

/// What we need of the FADT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// Physical address of the DSDT.
    pub dsdt: u64,
    /// PM1a control register block.
    pub pm1a_control: AcpiRegister,
    /// PM1b control register block; space 0 when there is none.
    pub pm1b_control: AcpiRegister,
    /// The power management timer, if the machine has one.
    pub pm_timer: Option<PmTimer>,
    /// The reset register; space 0 when there is none.
    pub reset: AcpiRegister,
    /// What to write there.
    pub reset_value: u8,
    /// Whether the latency that the table gives for C2 makes it usable (100 µs or less).
    pub has_c2: bool,
}

/// The counter at 3,579,545 Hz ("Power Management Timer").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Where it is read, 32 bits wide.
    pub register: AcpiRegister,
    /// The bits that count: 24 or 32 of them.
    pub mask: u32,
}

impl PmTimer {
    /// Its frequency in Hz.
    pub const HZ: u64 = 3_579_545;
}

impl Fadt {
    /// Reads an intact FADT; `None` for anything else.
    pub fn parse(table: &[u8]) -> Option<Self> {
        if !table.starts_with(b"FACP") || !is_intact(table) {
            return None;
        }
        let flags = u32_at(table, 112)?;
        let dsdt = u64_at(table, 140)
            .filter(|&address| address != 0)
            .or(u32_at(table, 40).map(u64::from))?;
        let timer = register(table, 76, u8_at(table, 91)?, 208);
        let reset = generic(table, 116)
            .filter(|_| flags & FLAG_RESET != 0)
            .unwrap_or_default();
        Some(Self {
            dsdt,
            pm1a_control: register(table, 64, u8_at(table, 89)?, 172),
            pm1b_control: register(table, 68, u8_at(table, 89)?, 184),
            pm_timer: (timer.space != 0).then_some(PmTimer {
                register: timer,
                mask: if flags & FLAG_TIMER_32 != 0 {
                    u32::MAX
                } else {
                    0xFF_FFFF
                },
            }),
            reset,
            reset_value: u8_at(table, 128).unwrap_or_default(),
            has_c2: u16_at(table, 96)? <= 100,
        })
    }
}

/// A register block by its extended address at `extended`, or by the port at `legacy` of `len` bytes.
fn register(table: &[u8], legacy: usize, len: u8, extended: usize) -> AcpiRegister {
    let port = u32_at(table, legacy).unwrap_or_default();
    generic(table, extended).unwrap_or(if port != 0 && len != 0 {
        AcpiRegister {
            space: AcpiRegister::IO,
            width: u32::from(len) * 8,
            address: port.into(),
        }
    } else {
        AcpiRegister::default()
    })
}

/// A Generic Address Structure in memory or I/O space ("Generic Address Structure"); `None` when it is empty or
/// somewhere else.
fn generic(table: &[u8], at: usize) -> Option<AcpiRegister> {
    const SYSTEM_MEMORY: u8 = 0;
    const SYSTEM_IO: u8 = 1;
    let space = match u8_at(table, at)? {
        SYSTEM_MEMORY => AcpiRegister::MEMORY,
        SYSTEM_IO => AcpiRegister::IO,
        _ => return None,
    };
    let (width, address) = (
        u8_at(table, at.checked_add(1)?)?,
        u64_at(table, at.checked_add(4)?)?,
    );
    (address != 0).then_some(AcpiRegister {
        space,
        width: width.into(),
        address,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::table::fix_checksum;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table(len: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut table = std::vec![0u8; len];
        table[..4].copy_from_slice(b"FACP");
        table[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        table[40..44].copy_from_slice(&0x7000u32.to_le_bytes());
        table[64..68].copy_from_slice(&0x604u32.to_le_bytes());
        table[76..80].copy_from_slice(&0x608u32.to_le_bytes());
        table[89] = 2;
        table[91] = 4;
        table[96..98].copy_from_slice(&0xFFFu16.to_le_bytes());
        change(&mut table);
        fix_checksum(&mut table);
        table
    }

    fn io(width: u32, address: u64) -> AcpiRegister {
        AcpiRegister {
            space: AcpiRegister::IO,
            width,
            address,
        }
    }

    #[test]
    fn a_short_table_gives_the_ports() {
        let fadt = Fadt::parse(&table(116, |_| {})).unwrap();
        assert_eq!(fadt.dsdt, 0x7000);
        assert_eq!(fadt.pm1a_control, io(16, 0x604));
        assert_eq!(fadt.pm1b_control, AcpiRegister::default());
        assert_eq!(
            fadt.pm_timer,
            Some(PmTimer {
                register: io(32, 0x608),
                mask: 0xFF_FFFF
            })
        );
        assert_eq!(fadt.reset, AcpiRegister::default());
        assert!(!fadt.has_c2);
    }

    #[test]
    fn extended_fields_win_over_the_old_ones() {
        let table = table(244, |t| {
            t[112..116].copy_from_slice(&(FLAG_RESET | FLAG_TIMER_32).to_le_bytes());
            t[116..120].copy_from_slice(&[1, 8, 0, 1]);
            t[120..128].copy_from_slice(&0xCF9u64.to_le_bytes());
            t[128] = 6;
            t[140..148].copy_from_slice(&0x1_0000_0000u64.to_le_bytes());
            t[172..176].copy_from_slice(&[0, 16, 0, 2]);
            t[176..184].copy_from_slice(&0xFED0_0000u64.to_le_bytes());
            t[96..98].copy_from_slice(&50u16.to_le_bytes());
        });
        let fadt = Fadt::parse(&table).unwrap();
        assert_eq!(fadt.dsdt, 0x1_0000_0000);
        assert_eq!(
            fadt.pm1a_control,
            AcpiRegister {
                space: AcpiRegister::MEMORY,
                width: 16,
                address: 0xFED0_0000
            }
        );
        assert_eq!((fadt.reset, fadt.reset_value), (io(8, 0xCF9), 6));
        assert_eq!(fadt.pm_timer.unwrap().mask, u32::MAX);
        assert!(fadt.has_c2);
    }

    #[test]
    fn a_reset_register_without_its_flag_does_not_count() {
        let table = table(244, |t| {
            t[116..120].copy_from_slice(&[1, 8, 0, 1]);
            t[120..128].copy_from_slice(&0xCF9u64.to_le_bytes());
        });
        assert_eq!(Fadt::parse(&table).unwrap().reset, AcpiRegister::default());
    }

    #[test]
    fn damaged_tables_are_refused() {
        let good = table(244, |_| {});
        let mut bad = good.clone();
        bad[70] ^= 1;
        assert_eq!(Fadt::parse(&bad), None);
        assert_eq!(Fadt::parse(&good[..100]), None);
        assert_eq!(Fadt::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(len in 36usize..280, fill in prop::collection::vec(any::<u8>(), 280)) {
            let mut bytes = fill[..len].to_vec();
            bytes[..4].copy_from_slice(b"FACP");
            bytes[4..8].copy_from_slice(&(len as u32).to_le_bytes());
            fix_checksum(&mut bytes);
            let _ = Fadt::parse(&bytes);
        }
    }
}
