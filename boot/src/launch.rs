//! From a file on a volume to a hypervisor under every LP.
#![expect(unsafe_code, reason = "calls into the hypervisor")]

use alloc::format;
use alloc::vec::Vec;

use bootinfo::{AcpiPower, BLOCK_ALIGN, EcamShim, Operation};
use config::OnPanic;
use placement::{DigestError, Image};
use uefi::Status;
use uefi::boot::{self, Tpl};
use uefi::runtime::{self, ResetType};
use x86::{efer, msr};

use crate::acpi::{self, Acpi};
use crate::block::Block;
use crate::cpu::{rdmsr, wrmsr};
use crate::failure::Failure;
use crate::place::{self, Machine, Placed};
use crate::processors::Processors;
use crate::say::{self, say};
use crate::volume::Volume;
use crate::{clock, memory, trampoline, virtualization};

/// Launches the hypervisor on every LP. When it returns, this program runs in the parent partition.
///
/// After an error nothing of the machine is changed. On a machine where the hypervisor runs already, because an
/// earlier parent's program returned and the loader was started again, there is nothing to do.
pub fn bring_up(config: &config::Hypervisor, own: &Volume) -> Result<(), Failure> {
    if acpi::is_hypervisor_there() {
        say!("the hypervisor runs already");
        return Ok(());
    }
    let processors = Processors::find()?;
    check_processors(&processors)?;
    let file = read_image(&config.image, own)?;
    let image = Image::parse(&file).map_err(|error| {
        Failure::new(
            Status::LOAD_ERROR,
            format_args!("hypervisor image {} {}", config.image, error.message()),
        )
    })?;

    let ram = memory::ram()?;
    let len = config.memory_reserve_mib.map_or_else(
        || {
            placement::default_reserve(
                memory::total(&ram),
                memory::end(&ram),
                processors.lps().len() as u64,
            )
        },
        |mib| (mib << 20).next_multiple_of(BLOCK_ALIGN),
    );
    let block = Block::reserve(len)?;
    let acpi = Acpi::find();
    let machine = Machine {
        ram: &ram,
        lps: processors.lps(),
        frequencies: clock::measure(acpi.as_ref().and_then(|acpi| acpi.fadt().pm_timer)),
        power: acpi.as_ref().map_or_else(AcpiPower::default, Acpi::power),
        ecam: acpi.as_ref().map_or_else(EcamShim::default, Acpi::ecam),
    };
    let mut placed = place::place(block, &image, &machine, config)?;
    say!(
        "hypervisor at {:#x}, {} MiB reserved, {} processors, {} MiB of memory",
        placed.block.range().start,
        len >> 20,
        processors.lps().len(),
        memory::total(&ram) >> 20
    );
    say!(
        "time-stamp counter {} kHz, APIC timer {} kHz",
        machine.frequencies.tsc / 1000,
        machine.frequencies.apic / 1000
    );
    launch(&processors, &mut placed, config.on_panic)?;
    say!(
        "the hypervisor runs on {} processors",
        processors.lps().len()
    );
    if let Some(acpi) = acpi {
        let highest = processors
            .lps()
            .iter()
            .map(|lp| lp.apic_id)
            .max()
            .unwrap_or_default();
        acpi.apply(placed.diagnostics, highest);
    }
    Ok(())
}

/// One pass over every LP that changes nothing.
fn check_processors(processors: &Processors) -> Result<(), Failure> {
    let levels = virtualization::paging_levels();
    let refuse = |index: usize, status: bootinfo::Status| {
        if status == bootinfo::Status::SUCCESS {
            return Ok(());
        }
        Err(Failure::new(
            Status::UNSUPPORTED,
            format_args!("processor {index}: {}", status.message()),
        ))
    };
    // The boot processor speaks for all in most cases; its line needs no number.
    match virtualization::check(levels) {
        bootinfo::Status::SUCCESS => {}
        status => return Err(Failure::refused(status)),
    }
    processors.on_others(&|_| virtualization::check(levels))?;
    for (index, lp) in processors.lps().iter().enumerate().skip(1) {
        match lp.answer() {
            Some(status) => refuse(index, status)?,
            None => {
                return Err(Failure::new(
                    Status::UNSUPPORTED,
                    format_args!(
                        "processor {index} (APIC id {:#x}) did not run when asked to",
                        lp.apic_id
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The image file, compared with its checksum when there is one beside it.
fn read_image(path: &str, own: &Volume) -> Result<Vec<u8>, Failure> {
    let file = own.read(path)?.ok_or_else(|| {
        Failure::new(
            Status::NOT_FOUND,
            format_args!("hypervisor image {path} not found on the loader's volume"),
        )
    })?;
    let sidecar_path = format!("{path}.sha256");
    let Some(sidecar) = own.read(&sidecar_path)? else {
        say!(
            "warning: {sidecar_path} is missing; damage to the hypervisor's file would not be noticed"
        );
        return Ok(file);
    };
    placement::check_digest(&file, &sidecar).map_err(|error| {
        let fault = match error {
            DigestError::Mismatch => "is damaged: its SHA-256 is not that of",
            DigestError::Malformed => "cannot be checked: no SHA-256 in",
        };
        Failure::new(
            Status::CRC_ERROR,
            format_args!("hypervisor image {path} {fault} {sidecar_path}"),
        )
    })?;
    Ok(file)
}

/// Prepare on the boot processor, launch on all others at once, launch on the boot processor last.
///
/// The order is not free: the firmware starts the others by INIT and SIPI, and a processor that is launched
/// first would have those taken from it.
fn launch(processors: &Processors, placed: &mut Placed, on_panic: OnPanic) -> Result<(), Failure> {
    say::leave_serial_line();
    let status = at_high_level(|| enter(placed, Operation::PREPARE, 0));
    if status != bootinfo::Status::SUCCESS {
        say::take_back_serial_line();
        return Err(Failure::refused(status));
    }

    // From here on the memory may be in use whatever the answers are.
    placed.block.keep();
    let shared: &Placed = placed;
    let others = processors.on_others(&|lp| enter(shared, Operation::LAUNCH, lp));
    let refused: Vec<_> = processors
        .lps()
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, lp)| lp.answer() != Some(bootinfo::Status::SUCCESS))
        .collect();
    if others.is_err() || !refused.is_empty() {
        say::take_back_serial_line();
    }
    for (index, lp) in &refused {
        let why = lp
            .answer()
            .map_or("did not answer", bootinfo::Status::message);
        say!(
            "processor {index} (APIC id {:#x}) was not launched: {why}",
            lp.apic_id
        );
    }
    if let Err(failure) = &others {
        say!("{}", failure.message);
    }
    if others.is_err() || !refused.is_empty() {
        stop(on_panic);
    }

    // No MP service is called after this, and no firmware output happens until it is over.
    let status = at_high_level(|| enter(placed, Operation::LAUNCH, 0));
    if status != bootinfo::Status::SUCCESS {
        say::take_back_serial_line();
    }
    match status {
        bootinfo::Status::SUCCESS => Ok(()),
        status if processors.lps().len() == 1 => Err(Failure::refused(status)),
        status => {
            say!("the boot processor was not launched: {}", status.message());
            stop(on_panic)
        }
    }
}

/// Runs `action` with the firmware's interrupts and callbacks held off.
fn at_high_level<T>(action: impl FnOnce() -> T) -> T {
    // SAFETY: `action` calls no firmware service, and the level is restored right after it.
    let _guard = unsafe { boot::raise_tpl(Tpl::HIGH_LEVEL) };
    action()
}

/// Calls the hypervisor on this LP.
fn enter(placed: &Placed, operation: Operation, lp: u32) -> bootinfo::Status {
    if operation == Operation::LAUNCH || lp == 0 {
        virtualization::open_feature_control();
    }
    // SAFETY: EFER exists on every x86-64 processor.
    let before = unsafe { rdmsr(msr::EFER) };
    if before & efer::NXE == 0 {
        // The hypervisor's tables use the no-execute bit; the firmware's then do not, and do not mind.
        // SAFETY: `virtualization::check` found the bit in CPUID on this LP.
        unsafe { wrmsr(msr::EFER, before | efer::NXE) };
    }
    // SAFETY: `placed` holds the hypervisor, its tables map the trampoline, and each LP has its own stack.
    let status = unsafe { trampoline::enter(&placed.jump(operation, lp)) };
    if before & efer::NXE == 0
        && (status != bootinfo::Status::SUCCESS || operation == Operation::PREPARE)
    {
        // SAFETY: this was the register's value.
        unsafe { wrmsr(msr::EFER, before) };
    }
    status
}

/// Some LPs are launched and others are not: there is no way back, and none forward.
fn stop(on_panic: OnPanic) -> ! {
    match on_panic {
        OnPanic::Reset => {
            say!("the machine is reset");
            boot::stall(core::time::Duration::from_secs(5));
            runtime::reset(ResetType::COLD, Status::ABORTED, None);
        }
        OnPanic::Halt => {
            say!("the machine is stopped; switch it off");
            loop {
                x86_64::instructions::hlt();
            }
        }
    }
}
