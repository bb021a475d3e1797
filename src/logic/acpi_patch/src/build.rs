//! New tables for the parent.

use alloc::vec;
use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Name, ResourceTemplate, Scope, ZERO};
use bootinfo::{EcamShim, SpaRange};

use crate::table::{HEADER_LEN, fix_checksum};

/// An SSDT with the VMBus device, directly under `\_SB`: with no ancestor that has resources there is no pool of
/// addresses for VMBus to hand out, which is what the parent needs.
pub fn vmbus_ssdt() -> Vec<u8> {
    let mut aml = Vec::new();
    Scope::new(
        "\\_SB_".into(),
        vec![&Device::new(
            "VMBS".into(),
            vec![
                &Name::new("_HID".into(), &"VMBus"),
                &Name::new("_UID".into(), &ZERO),
                &Name::new("_STA".into(), &0x0Fu8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![])),
            ],
        )],
    )
    .to_aml_bytes(&mut aml);
    table(*b"SSDT", 2, &aml)
}

/// An MCFG for `shim`: segment 0, from bus 0 on (PCI Firmware Specification 3.3, "MCFG Table Description").
pub fn mcfg(shim: EcamShim) -> Vec<u8> {
    let mut body = vec![0u8; 8];
    body.extend_from_slice(&shim.base.get().to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, u8::try_from(shim.last_bus).unwrap_or(u8::MAX)]);
    body.extend_from_slice(&[0; 4]);
    table(*b"MCFG", 1, &body)
}

/// The table `VDGS`: where the parent may read the hypervisor's diagnostics. Address and length in bytes, eight
/// bytes each, follow the header.
pub fn diagnostics_table(area: SpaRange) -> Vec<u8> {
    let mut body = area.start.get().to_le_bytes().to_vec();
    body.extend_from_slice(&area.len.to_le_bytes());
    table(*b"VDGS", 1, &body)
}

/// A table with our marks in its header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
    let mut table = Vec::with_capacity(HEADER_LEN + body.len());
    table.extend_from_slice(&signature);
    table.extend_from_slice(&len.to_le_bytes());
    table.extend_from_slice(&[revision, 0]);
    table.extend_from_slice(b"VERDIG");
    table.extend_from_slice(b"VERDIGRI");
    table.extend_from_slice(&1u32.to_le_bytes());
    table.extend_from_slice(b"VDGS");
    table.extend_from_slice(&1u32.to_le_bytes());
    table.extend_from_slice(body);
    fix_checksum(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aml::mentions_vmbus;
    use crate::table::is_intact;
    use addr::Spa;

    #[test]
    fn the_vmbus_device_is_as_the_compiler_of_acpica_writes_it() {
        // Scope (\_SB) { Device (VMBS) { Name (_HID, "VMBus") Name (_UID, Zero) Name (_STA, 0x0F)
        //     Name (_CRS, ResourceTemplate () {}) } }
        let expected: &[u8] = b"\x10\x31\\_SB_\x5B\x82\x29VMBS\
            \x08_HID\x0DVMBus\0\x08_UID\0\x08_STA\x0A\x0F\x08_CRS\x11\x05\x0A\x02\x79\0";
        let ssdt = vmbus_ssdt();
        assert!(is_intact(&ssdt) && mentions_vmbus(&ssdt));
        assert_eq!(&ssdt[HEADER_LEN..], expected);
    }

    #[test]
    fn an_mcfg_has_one_window_from_bus_0() {
        let table = mcfg(EcamShim {
            base: Spa::new(0xB000_0000),
            last_bus: 255,
            reserved: 0,
        });
        assert!(is_intact(&table));
        assert_eq!(table.len(), 60);
        assert_eq!(&table[44..], b"\0\0\0\xB0\0\0\0\0\0\0\0\xFF\0\0\0\0");
    }

    #[test]
    fn the_diagnostics_table_names_the_area() {
        let table = diagnostics_table(SpaRange {
            start: Spa::new(0x3C60_0000),
            len: 1 << 20,
        });
        assert!(is_intact(&table));
        assert_eq!(&table[..4], b"VDGS");
        assert_eq!(&table[36..44], &0x3C60_0000u64.to_le_bytes());
        assert_eq!(&table[44..], &(1u64 << 20).to_le_bytes());
    }
}
