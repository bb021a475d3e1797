//! The logical processors that the firmware runs, and one pass of a function over all of them.
#![expect(unsafe_code, reason = "runs code on all processors")]

use alloc::vec::Vec;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bootinfo::Status;
use uefi::boot;
use uefi::proto::pi::mp::MpServices;

use crate::cpu;
use crate::failure::{Failure, firmware};
use crate::say::say;

/// What an LP that did not answer has in its slot.
const NO_ANSWER: u64 = u64::MAX;

/// One LP of our world.
pub struct Lp {
    /// Identifier of its local APIC.
    pub apic_id: u32,
    /// What it answered in the last pass.
    answer: AtomicU64,
}

impl Lp {
    fn new(apic_id: u32) -> Self {
        Self {
            apic_id,
            answer: AtomicU64::new(NO_ANSWER),
        }
    }

    /// The answer of the last pass, `None` when the LP gave none.
    pub fn answer(&self) -> Option<Status> {
        Some(self.answer.load(Ordering::Acquire))
            .filter(|&answer| answer != NO_ANSWER)
            .map(Status)
    }
}

/// All LPs that take part: the boot processor first, then the others in the firmware's order.
pub struct Processors {
    lps: Vec<Lp>,
    services: Option<boot::ScopedProtocol<MpServices>>,
}

/// What an application processor needs to find its part in a pass.
struct Pass<'a> {
    lps: &'a [Lp],
    action: &'a (dyn Fn(u32) -> Status + Sync),
    strangers: AtomicU32,
}

impl Processors {
    /// Asks the firmware. LPs that are disabled or unhealthy are not ours; without the MP services protocol there
    /// is the boot processor only.
    pub fn find() -> Result<Self, Failure> {
        let mut found = Self {
            lps: alloc::vec![Lp::new(cpu::apic_id())],
            services: None,
        };
        let Ok(handle) = boot::get_handle_for_protocol::<MpServices>() else {
            say!("the firmware offers no MP services; only the boot processor is used");
            return Ok(found);
        };
        let params = boot::OpenProtocolParams {
            handle,
            agent: boot::image_handle(),
            controller: None,
        };
        // SAFETY: the protocol belongs to the firmware's core and stays until ExitBootServices.
        let services = unsafe {
            boot::open_protocol::<MpServices>(params, boot::OpenProtocolAttributes::GetProtocol)
        }
        .map_err(firmware("MP services"))?;
        let total = services
            .get_number_of_processors()
            .map_err(firmware("number of processors"))?
            .total;
        for number in 0..total {
            let info = services
                .get_processor_info(number)
                .map_err(firmware("processor information"))?;
            if info.is_bsp() {
                continue;
            }
            if !info.is_enabled() || !info.is_healthy() {
                say!(
                    "processor {number} (APIC id {:#x}) is disabled by the firmware and left out",
                    info.processor_id
                );
                continue;
            }
            let apic_id = u32::try_from(info.processor_id).map_err(|_| {
                Failure::new(
                    uefi::Status::UNSUPPORTED,
                    format_args!("processor {number} has no 32-bit APIC id"),
                )
            })?;
            found.lps.push(Lp::new(apic_id));
        }
        found.services = Some(services);
        Ok(found)
    }

    /// The LPs; the index is the LP index.
    pub fn lps(&self) -> &[Lp] {
        &self.lps
    }

    /// Runs `action` with the LP index on every LP but the boot processor, all at once, and waits for them. Their
    /// answers are in [`Lp::answer`] then.
    ///
    /// `action` runs on the firmware's stacks and must use no firmware service and no allocation.
    pub fn on_others(&self, action: &(dyn Fn(u32) -> Status + Sync)) -> Result<(), Failure> {
        let Some(services) = self.services.as_ref().filter(|_| self.lps.len() > 1) else {
            return Ok(());
        };
        for lp in &self.lps {
            lp.answer.store(NO_ANSWER, Ordering::Release);
        }
        let pass = Pass {
            lps: &self.lps,
            action,
            strangers: AtomicU32::new(0),
        };
        let argument: *const Pass<'_> = &pass;
        services
            .startup_all_aps(
                false,
                run_pass,
                argument.cast_mut().cast::<c_void>(),
                None,
                None,
            )
            .map_err(firmware("the other processors cannot be started"))?;
        match pass.strangers.load(Ordering::Acquire) {
            0 => Ok(()),
            count => Err(Failure::new(
                uefi::Status::UNSUPPORTED,
                format_args!("{count} processors run that the firmware does not list"),
            )),
        }
    }
}

/// The procedure that the firmware calls on each application processor.
extern "efiapi" fn run_pass(argument: *mut c_void) {
    // SAFETY: `on_others` passes its `Pass`, which outlives the blocking call; it is shared and only read.
    let pass = unsafe { &*argument.cast::<Pass<'_>>() };
    let apic_id = cpu::apic_id();
    match pass.lps.iter().position(|lp| lp.apic_id == apic_id) {
        Some(index) if index > 0 => {
            let answer = (pass.action)(index as u32);
            pass.lps[index].answer.store(answer.0, Ordering::Release);
        }
        _ => {
            pass.strangers.fetch_add(1, Ordering::AcqRel);
        }
    }
}
