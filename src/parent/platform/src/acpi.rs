//! ACPI tables (ACPI Specification 6.5, "ACPI Software Programming Model"): those of a Hyper-V generation 2 machine.
//!
//! Not hardware-reduced: only then does Linux set up the interrupt of COM1. It needs a system control interrupt in turn,
//! and so an IO-APIC. There are no 8259s, no PIT, no PM timer, no HPET and no PCI.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::devices::{CENTURY, SOFT_OFF};
use crate::map;

const OEM: [u8; 6] = *b"VERDIG";
const OEM_TABLE: [u8; 8] = *b"VERDIGRS";
const OEM_REVISION: u32 = 1;

/// No VGA: Linux then does not look for one. No 8042 and no legacy devices beyond those that the DSDT names.
const NO_VGA: u16 = 1 << 2;
/// Latencies that mean that there are no C2 and C3 states.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// Active high, level triggered.
const HIGH_LEVEL: u16 = 0b1101;
/// Bytes of a MADT before its entries.
const MADT_HEADER: usize = 44;

/// The tables as they lie at [`map::TABLES`], the RSDP first.
pub(crate) fn tables(vps: u32) -> Vec<u8> {
    let mut area = Area::default();
    // The RSDP comes first and is known last.
    let rsdp = area.place(&[0; size_of::<Rsdp>()]);
    let facs = area.place(&bytes(&FACS::new()));
    let dsdt = area.place(&bytes(&dsdt()));
    let fadt = area.place(&bytes(&fadt(facs, dsdt)));
    let madt = area.place(&bytes(&madt(vps)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.place(&bytes(&xsdt));
    area.replace(rsdp, &bytes(&Rsdp::new(OEM, xsdt)));
    area.bytes
}

/// Tables one after the other.
#[derive(Default)]
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Puts `table` behind the others, at a multiple of 64 bytes as the FACS wants it. Returns its address.
    fn place(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = map::TABLES.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        at
    }

    fn replace(&mut self, at: u64, table: &[u8]) {
        let start = at.saturating_sub(map::TABLES.start) as usize;
        for (to, &from) in self.bytes.iter_mut().skip(start).zip(table) {
            *to = from;
        }
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn io_register(port: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(GasSpace::SystemIo, bytes * 8, 0, access, port.into())
}

fn fadt(facs: u64, dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is a fixed feature and the sleep button is not; neither is the clock as a wake source.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .firmware_ctrl_32(facs as u32)
        .dsdt_64(dsdt);
    fadt.dsdt = (dsdt as u32).into();
    fadt.sci_int = u16::from(map::SCI_PIN).into();
    fadt.pm1a_evt_blk = u32::from(map::PM1_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = io_register(map::PM1_EVENT, 4, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(map::PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = io_register(map::PM1_CONTROL, 2, AccessSize::WordAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.reset_reg = io_register(map::RESET, 1, AccessSize::ByteAccess);
    fadt.reset_value = map::RESET_VALUE;
    fadt.finalize()
}

fn madt(vps: u32) -> impl Aml {
    let mut madt = Sdt::new(
        *b"APIC",
        MADT_HEADER as u32,
        5,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    // The flag for 8259s stays clear.
    madt.write_u32(36, map::LOCAL_APIC);
    for vp in 0..vps.min(map::MAX_VPS) as u8 {
        let apic = ProcessorLocalApic::new(vp, vp, EnabledStatus::Enabled);
        madt.append_slice(&bytes(&apic));
    }
    let io_apic = IoApic::new(map::io_apic_id(vps), map::IO_APIC as u32, 0);
    madt.append_slice(&bytes(&io_apic));
    // Interrupt source override: ISA interrupt of the SCI, its pin, its flags.
    let [low, high] = HIGH_LEVEL.to_le_bytes();
    madt.append_slice(&[2, 10, 0, map::SCI_PIN, map::SCI_PIN, 0, 0, 0, low, high]);
    madt
}

fn dsdt() -> impl Aml {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&system_bus());
    let soft_off = Name::new(
        "_S5_".into(),
        &Package::new(vec![&SOFT_OFF, &SOFT_OFF, &ZERO, &ZERO]),
    );
    dsdt.append_slice(&bytes(&soft_off));
    dsdt
}

/// `\_SB`: VMBus under the container that has its window, COM1, the clock.
fn system_bus() -> Vec<u8> {
    let window = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        map::VMBUS_WINDOW.start as u32,
        (map::VMBUS_WINDOW.end - 1) as u32,
        None,
    );
    // Linux takes the window from the nearest of the device and its ancestors that has one. A device without
    // resources of its own would not do.
    let vmbus = Device::new(
        "VMBS".into(),
        vec![
            &Name::new("_HID".into(), &"MSFT1000"),
            &Name::new("_CID".into(), &"VMBus"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_STA".into(), &0xF_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![])),
        ],
    )
    .to_bytes();
    let container = Device::new(
        "VMOD".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0004"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window])),
            &vmbus,
        ],
    )
    .to_bytes();
    let com1 = Device::new(
        "UAR1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1_u8),
            &Name::new("_DDN".into(), &"COM1"),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(map::COM1, map::COM1, 1, 8),
                    &Interrupt::new(true, true, false, false, map::COM1_PIN.into()),
                ]),
            ),
        ],
    )
    .to_bytes();
    let clock = Device::new(
        "RTC0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&IO::new(map::RTC, map::RTC, 1, 2)]),
            ),
        ],
    )
    .to_bytes();
    bytes(&Scope::new(
        "\\_SB_".into(),
        vec![&container, &com1, &clock],
    ))
}

/// AML that was written before its parent is.
struct Written(Vec<u8>);

impl Aml for Written {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// What has a form in AML.
trait ToBytes: Aml {
    /// That form, apart from what it was made of.
    fn to_bytes(&self) -> Written
    where
        Self: Sized,
    {
        Written(bytes(self))
    }
}

impl<T: Aml> ToBytes for T {}

#[cfg(test)]
mod tests;
