//! The machine's ACPI tables: read before the launch, changed after it.
//!
//! What the hypervisor must know is found first, and nothing is touched. Only when the hypervisor runs are its
//! additions made, so that a refused launch leaves the tables as the firmware made them.
#![expect(unsafe_code, reason = "reads and changes the firmware's tables")]

use alloc::vec::Vec;
use core::ffi::c_void;

use acpi_patch::{Fadt, HEADER_LEN, Rsdp};
use bootinfo::{AcpiPower, EcamShim, SpaRange};
use uefi::boot::{self, MemoryType};
use uefi::proto::acpi::AcpiTable;
use uefi::system;
use uefi::table::cfg::ConfigTableEntry;

use crate::ecam;
use crate::say::say;

/// Whether the tables are those of a parent partition: they name the hypervisor's diagnostics.
pub fn is_hypervisor_there() -> bool {
    list()
        .iter()
        .any(|table| table.bytes().starts_with(b"VDGS"))
}

/// The tables as the firmware left them, by address.
pub struct Acpi {
    fadt: Fadt,
    /// DSDT and SSDTs.
    definitions: Vec<Table>,
    /// DMAR and IVRS.
    remapping: Vec<Table>,
    ecam: EcamShim,
}

/// An intact table in the firmware's memory.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    len: usize,
}

impl Table {
    /// The table at `address`, if its length is possible and its checksum right.
    fn at(address: u64) -> Option<Self> {
        if address == 0 {
            return None;
        }
        // SAFETY: the firmware's tables lead here; it maps all memory, and a header is 36 bytes.
        let header = unsafe { core::slice::from_raw_parts(address as *const u8, HEADER_LEN) };
        let table = Self {
            address,
            len: acpi_patch::table_len(header)?,
        };
        acpi_patch::is_intact(table.bytes()).then_some(table)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `at` found a length that its checksum confirms, or is about to confirm. Nobody writes to
        // tables while this program runs, but `bytes_mut`.
        unsafe { core::slice::from_raw_parts(self.address as *const u8, self.len) }
    }

    /// For a change in place.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; ACPI tables lie in writable memory, and the firmware does not use them any more.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.len) }
    }
}

impl Acpi {
    /// Reads the tables; `None`, with a line, when the machine has no usable ones.
    pub fn find() -> Option<Self> {
        let tables = list();
        let with = |name: &[u8; 4]| {
            tables
                .iter()
                .copied()
                .filter(|t| t.bytes().starts_with(name))
                .collect::<Vec<_>>()
        };
        let Some(fadt) = with(b"FACP")
            .first()
            .and_then(|table| Fadt::parse(table.bytes()))
        else {
            say!(
                "warning: no usable ACPI tables; nothing is hidden from the parent and nothing added"
            );
            return None;
        };
        let mut definitions = with(b"SSDT");
        definitions.extend(Table::at(fadt.dsdt));
        let ecam = if with(b"MCFG").is_empty() {
            ecam::choose()
        } else {
            EcamShim::default()
        };
        Some(Self {
            fadt,
            definitions,
            remapping: [with(b"DMAR"), with(b"IVRS")].concat(),
            ecam,
        })
    }

    /// The fixed hardware.
    pub const fn fadt(&self) -> &Fadt {
        &self.fadt
    }

    /// The window in which the hypervisor emulates PCI configuration; empty where the firmware has its own.
    pub const fn ecam(&self) -> EcamShim {
        self.ecam
    }

    /// Registers and values that end or suspend the machine's work.
    pub fn power(&self) -> AcpiPower {
        const NO_S5: u32 = 0xFFFF;
        let found = |search: fn(&[u8]) -> Option<u16>| {
            self.definitions
                .iter()
                .find_map(|table| search(table.bytes()))
        };
        let p_lvl2 = found(acpi_patch::processor_block)
            .filter(|_| self.fadt.has_c2)
            .and_then(|port| port.checked_add(4));
        AcpiPower {
            pm1a_control: self.fadt.pm1a_control,
            pm1b_control: self.fadt.pm1b_control,
            p_lvl2_port: p_lvl2.map_or(0, u32::from),
            s5_types: found(acpi_patch::s5_types).map_or(NO_S5, u32::from),
            reset: self.fadt.reset,
            reset_value: self.fadt.reset_value.into(),
            reserved: 0,
        }
    }

    /// Makes the changes for a parent above the hypervisor. `highest_apic_id` is that of our LPs.
    ///
    /// Nothing here is vital: what cannot be done is said.
    pub fn apply(mut self, diagnostics: SpaRange, highest_apic_id: u32) {
        let hidden: usize = self
            .definitions
            .iter_mut()
            .map(|table| acpi_patch::hide_s3(table.bytes_mut()))
            .sum();
        if hidden > 0 {
            say!("sleep to memory (S3) is hidden from the parent");
        }
        for table in &mut self.remapping {
            hide_remapping(table, highest_apic_id);
        }
        let mut new = Vec::new();
        if self
            .definitions
            .iter()
            .any(|table| acpi_patch::mentions_vmbus(table.bytes()))
        {
            say!("the firmware has a VMBus device of its own; none is added");
        } else {
            new.push(acpi_patch::vmbus_ssdt());
        }
        if self.ecam.base.get() != 0 {
            ecam::reserve(self.ecam);
            new.push(acpi_patch::mcfg(self.ecam));
        }
        new.push(acpi_patch::diagnostics_table(diagnostics));
        install(&new);
    }
}

/// Hides the table of a remapping unit unless someone needs it: interrupts for APIC ids above 255 cannot do
/// without, and a unit that the firmware left on must be driven by the parent.
fn hide_remapping(table: &mut Table, highest_apic_id: u32) {
    let signature = acpi_patch::signature(table.bytes()).unwrap_or_default();
    let name = core::str::from_utf8(&signature).unwrap_or_default();
    let is_on = acpi_patch::remapping_units(table.bytes())
        .iter()
        .any(|unit| {
            // SAFETY: the table names this as a unit's 32-bit register; reading it has no effect.
            let status = unsafe { (unit.status as *const u32).read_volatile() };
            status & unit.active != 0
        });
    if highest_apic_id > 255 || is_on {
        say!(
            "{name} stays visible: {}",
            if is_on {
                "the firmware left remapping on"
            } else {
                "APIC ids above 255"
            }
        );
        return;
    }
    say!("{name} is hidden from the parent");
    let mut other = signature;
    other[0] = b'X';
    acpi_patch::rename(table.bytes_mut(), other);
}

/// All intact tables that the root pointer leads to, DSDT and FACS not among them.
fn list() -> Vec<Table> {
    let Some(rsdp) = root_pointer() else {
        return Vec::new();
    };
    let roots = [rsdp.xsdt, rsdp.rsdt.into()];
    let Some(root) = roots.into_iter().find_map(Table::at) else {
        return Vec::new();
    };
    acpi_patch::table_addresses(root.bytes())
        .into_iter()
        .filter_map(Table::at)
        .collect()
}

fn root_pointer_address() -> Option<u64> {
    system::with_config_table(|entries| {
        let find = |guid| {
            entries
                .iter()
                .find(|entry| entry.guid == guid)
                .map(|entry| entry.address as u64)
        };
        find(ConfigTableEntry::ACPI2_GUID).or_else(|| find(ConfigTableEntry::ACPI_GUID))
    })
}

fn root_pointer() -> Option<Rsdp> {
    let address = root_pointer_address()?;
    // SAFETY: the configuration table's entry is the root pointer, 20 bytes and since ACPI 2.0 36; the bytes
    // after an old one are mapped memory too.
    Rsdp::parse(unsafe { core::slice::from_raw_parts(address as *const u8, Rsdp::LEN) })
}

/// Adds `tables` to the list that the parent will find.
fn install(tables: &[Vec<u8>]) {
    let by_protocol = boot::get_handle_for_protocol::<AcpiTable>().and_then(|handle| {
        let params = boot::OpenProtocolParams {
            handle,
            agent: boot::image_handle(),
            controller: None,
        };
        // SAFETY: the protocol belongs to the firmware's ACPI driver and stays.
        unsafe {
            boot::open_protocol::<AcpiTable>(params, boot::OpenProtocolAttributes::GetProtocol)
        }
    });
    let Ok(protocol) = by_protocol else {
        return install_by_hand(tables);
    };
    for table in tables {
        // SAFETY: the firmware copies the table; its length is in its header.
        let result =
            unsafe { protocol.install_acpi_table(table.as_ptr().cast::<c_void>(), table.len()) };
        if let Err(error) = result {
            let signature = acpi_patch::signature(table).unwrap_or_default();
            let name = core::str::from_utf8(&signature).unwrap_or_default();
            say!(
                "warning: the ACPI table {name} could not be added: {}",
                error.status()
            );
        }
    }
}

/// For firmware without the protocol: copies in ACPI memory, and a longer XSDT that the root pointer leads to.
fn install_by_hand(tables: &[Vec<u8>]) {
    let done = (|| {
        let addresses: Option<Vec<u64>> = tables.iter().map(|table| keep(table)).collect();
        let root = Table::at(root_pointer()?.xsdt)?;
        let xsdt = keep(&acpi_patch::longer_xsdt(root.bytes(), &addresses?)?)?;
        let rsdp = root_pointer_address()? as *mut u8;
        // SAFETY: `root_pointer` found 36 valid bytes there; nobody else uses them now.
        let rsdp = unsafe { core::slice::from_raw_parts_mut(rsdp, Rsdp::LEN) };
        acpi_patch::set_xsdt(rsdp, xsdt).then_some(())
    })();
    if done.is_none() {
        say!("warning: the ACPI tables for the parent could not be added");
    }
}

/// A copy of `bytes` in memory that the operating system keeps until it has read the tables.
fn keep(bytes: &[u8]) -> Option<u64> {
    let place = boot::allocate_pool(MemoryType::ACPI_RECLAIM, bytes.len()).ok()?;
    // SAFETY: the pool allocation is as long as `bytes` and nobody else's.
    unsafe {
        place
            .as_ptr()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
    };
    Some(place.as_ptr() as u64)
}
