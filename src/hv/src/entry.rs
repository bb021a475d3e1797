//! From the loader's calls to the first entry of each VP.
//!
//! `PREPARE` comes once, on the boot processor, and does everything that can fail for want of memory. `LAUNCH` comes on
//! every LP, the boot processor last; its success does not return here: control goes on in the loader as a guest.
#![expect(
    unsafe_code,
    reason = "the entry point, which trusts the loader's record"
)]

use addr::{Spa, VpIndex};
use apic::Apic;
use bootinfo::{BootInfo, LaunchCall, LpInfo, MAGIC, Operation, Status, VERSION};
use sched::Published;
use spin::{Mutex, Once};
use vpcore::msr::{MsrClass, classify};
use vpcore::seam::{InterceptBitmaps, Role, VpBackend};
use x86::msr::{IA32_APIC_BASE, apic_base};

use crate::arch::x86::descriptors::Descriptors;
use crate::arch::x86::extended::Extended;
use crate::arch::x86::local_apic::{self, LocalApic};
use crate::arch::x86::lp::{self, LpArea, LpShared};
use crate::arch::x86::{captured::Captured, idt, insn, msr, mtrr};
use crate::diagnostics::Counters;
use crate::mm::frames::{self, FrameUse, VpFrames};
use crate::mm::{address_space, owners, phys};
use crate::partition::{ParentPartition, Partition, slots, statistics, vmbus};
use crate::scheduler::{self, LpQueue, Processor};
use crate::virt::{Virt, on_this_machine};
use crate::vp::parent::{Parent, trap_ports};
use crate::vp::{Vp, VpParts, child};
use crate::{console, diagnostics, panic, power};

/// What `PREPARE` made for one LP, taken by its `LAUNCH`.
struct Prepared {
    area: &'static LpArea,
    descriptors: &'static mut Descriptors,
}

/// What `PREPARE` made.
struct Machine {
    info: &'static BootInfo,
    lps: Mutex<&'static mut [Option<Prepared>]>,
    partition: &'static ParentPartition,
}

static MACHINE: Once<Machine> = Once::new();

/// The ELF entry point. See [`bootinfo::Entry`].
///
/// # Safety
/// The loader calls it as [`bootinfo::Operation`] says, on the LP's bootstrap stack, interrupts off, on its own
/// tables.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.entry")]
pub unsafe extern "sysv64" fn hypervisor_entry(call: *const LaunchCall) -> Status {
    // SAFETY: the trampoline built it on this stack.
    let call = unsafe { call.read() };
    let result = match call.operation {
        // SAFETY: passed on to the caller.
        Operation::PREPARE => unsafe { prepare(call.boot_info) },
        Operation::LAUNCH => launch(&call),
        _ => Err(Status::BAD_BOOT_INFO),
    };
    match result {
        Ok(()) => Status::SUCCESS,
        Err(status) => status,
    }
}

/// # Safety
/// `spa` names the loader's record, in the physical map.
unsafe fn prepare(spa: Spa) -> Result<(), Status> {
    // SAFETY: passed on to the caller; the record stays as it is from now on.
    let info: &'static BootInfo = unsafe { &*phys::pointer(spa).cast() };
    if info.magic != MAGIC || info.version != VERSION || info.size as usize != size_of::<BootInfo>()
    {
        return Err(Status::BAD_BOOT_INFO);
    }
    if MACHINE.get().is_some() || info.lp_count == 0 {
        return Err(Status::BAD_BOOT_INFO);
    }
    // SAFETY: the loader says that nothing uses this part of the block.
    unsafe { frames::init(info.free) };
    owners::init(info)?;
    if !diagnostics::init(info) {
        return Err(Status::NO_MEMORY);
    }
    panic::init(info.panic_action);
    power::init(&info.power);
    console::init(&info.console);
    let vendor = if crate::virt::is_intel() {
        "VT-x"
    } else {
        "AMD-V"
    };
    log::info!(
        "verdigris {} on {} LPs with {vendor}, TSC {} kHz, APIC timer {} kHz, {} levels of paging",
        env!("CARGO_PKG_VERSION"),
        info.lp_count,
        info.tsc_hz / 1000,
        info.apic_hz / 1000,
        info.levels
    );
    address_space::init(info, local_apic::physical_page())?;
    // SAFETY: the loader placed the array in the block, with this many entries.
    let infos = unsafe {
        core::slice::from_raw_parts(
            phys::pointer(info.lps).cast::<LpInfo>(),
            info.lp_count as usize,
        )
    };
    let shared: &'static [LpShared] = frames::place_slice(FrameUse::Lp, infos.len(), |index| {
        LpShared::new(addr::ApicId::new(
            infos.get(index).map_or(0, |lp| lp.apic_id),
        ))
    })
    .ok_or(Status::NO_MEMORY)?;
    lp::publish(shared);
    let lps = frames::place_with(FrameUse::Lp, infos.len(), |index| {
        Some(Some(prepare_lp(info, index, shared)?))
    })
    .ok_or(Status::NO_MEMORY)?;
    let partition = prepare_partition(info, shared)?;
    // What a launch allocates cannot fail then.
    const LAUNCH_BYTES: u64 = 128 << 10;
    if frames::usage().1 < u64::from(info.lp_count) * LAUNCH_BYTES {
        return Err(Status::NO_MEMORY);
    }
    MACHINE.call_once(|| Machine {
        info,
        lps: Mutex::new(lps),
        partition,
    });
    report_memory(info);
    Ok(())
}

fn prepare_lp(info: &BootInfo, index: usize, shared: &'static [LpShared]) -> Option<Prepared> {
    let number = addr::LpIndex::new(u32::try_from(index).ok()?);
    let stacks = address_space::map_interrupt_stacks(number).ok()?;
    let local = LocalApic::new(address_space::apic_page(), info.tsc_hz, info.apic_hz);
    Some(Prepared {
        area: frames::place(FrameUse::Lp, LpArea::new(number, shared.get(index)?, local))?,
        descriptors: frames::place(FrameUse::Lp, Descriptors::new(stacks))?,
    })
}

fn prepare_partition(
    info: &BootInfo,
    shared: &'static [LpShared],
) -> Result<&'static ParentPartition, Status> {
    let facts = on_this_machine!(V => V::facts())?;
    let has_ecam = info.ecam.base.get() != 0;
    let mut choose = |bitmaps: &mut dyn InterceptBitmaps| {
        trap_ports(bitmaps, has_ecam);
        // MSRs that the bitmap does not cover exit whatever is asked, so the answer does not matter.
        for msr in (0..0x2000).chain(0xC000_0000..0xC000_2000) {
            if classify(msr) == MsrClass::Direct {
                bitmaps.pass_msr_read(msr);
                bitmaps.pass_msr_write(msr);
            }
        }
    };
    let bitmaps = on_this_machine!(V => V::bitmaps(&mut VpFrames, &mut choose))?;
    let child = on_this_machine!(V => V::bitmaps(&mut VpFrames, &mut child::choose_exits))?;
    let partition = ParentPartition::new(info, shared, facts, bitmaps, child)?;
    init_queues(info)?;
    let partition = frames::place(FrameUse::Partition, partition).ok_or(Status::NO_MEMORY)?;
    slots::init().map_err(|_| Status::NO_MEMORY)?;
    vmbus::parent::start(partition).map_err(|_| Status::NO_MEMORY)?;
    Ok(partition)
}

/// For each LP a run queue, and room for pages of statistics.
fn init_queues(info: &BootInfo) -> Result<(), Status> {
    let count = info.lp_count as usize;
    let published = frames::place_slice(FrameUse::Lp, count, |_| Published::new());
    let published: &'static [Published] = published.ok_or(Status::NO_MEMORY)?;
    let queues = frames::place_with(FrameUse::Lp, count, |index| {
        let published = published.get(index)?;
        Some(LpQueue::new(index as u32, info.tsc_hz, published))
    });
    scheduler::init(queues.ok_or(Status::NO_MEMORY)?);
    statistics::init(count).ok_or(Status::NO_MEMORY)
}

/// Prints where the memory went.
fn report_memory(info: &BootInfo) {
    let (used, untouched) = frames::usage();
    log::info!(
        "memory: block {} KiB at {:#x}, image {} KiB",
        info.block.len >> 10,
        info.block.start.get(),
        info.image.len >> 10
    );
    for (name, count) in frames::USE_NAMES.iter().zip(used) {
        log::info!("memory: {name} {} KiB", count * 4);
    }
    log::info!(
        "memory: diagnostics {} KiB, free {} KiB",
        info.diagnostics.len >> 10,
        untouched >> 10
    );
}

fn launch(call: &LaunchCall) -> Result<(), Status> {
    let machine = MACHINE.get().ok_or(Status::BAD_BOOT_INFO)?;
    on_this_machine!(V => launch_on::<V>(machine, call))
}

/// Makes this LP the hypervisor's and enters its VP. Returns only when the processor refused.
fn launch_on<V: Virt>(machine: &Machine, call: &LaunchCall) -> Result<(), Status> {
    let partition = machine.partition;
    V::facts()?;
    let prepared = machine
        .lps
        .lock()
        .get_mut(call.lp as usize)
        .and_then(Option::take)
        .ok_or(Status::BAD_BOOT_INFO)?;
    let captured = Captured::take(call);
    captured.prepare_host();
    // SAFETY: interrupts are off, IDTR and GS base follow at once.
    unsafe { prepared.descriptors.load() };
    // GS first: an NMI goes through it.
    prepared.area.install();
    idt::load();
    let area = lp::current();

    let backend = {
        let slat = partition.slat.lock();
        mtrr::adopt(slat.mtrr());
        let frame = frames::alloc(FrameUse::Vp, 1).ok_or(Status::NO_MEMORY);
        V::enable(&mut VpFrames).and_then(|(mut extension, on)| {
            let bitmaps = partition.bitmaps;
            let mut vp = V::vp(frame?, Role::Parent, bitmaps, slat.root(), slat.levels())?;
            vp.load(&mut extension);
            Ok((extension, on, vp))
        })
    };
    let (extension, on, mut backend) = match backend {
        Ok(both) => both,
        Err(status) => {
            area.leave();
            // SAFETY: gives back what `take` found.
            unsafe { captured.restore() };
            return Err(status);
        }
    };
    captured.load_into(&mut backend);

    let local = &area.local;
    local.adopt();
    let now = insn::rdtsc();
    let snapshot = local.snapshot(area.apic_id);
    let core = partition.core();
    let shared = core.vps.get(VpIndex::new(area.index.get()));
    let apic = Apic::from_snapshot(&snapshot, core.apic_features, core.timing, now);
    let (Some(shared), Some(apic)) = (shared, apic) else {
        area.leave();
        // SAFETY: as above.
        unsafe { captured.restore() };
        return Err(Status::MISSING_FEATURE);
    };
    local.take();
    local.check_deadline();
    local.end_all();
    debug_assert!(msr::read(IA32_APIC_BASE) & apic_base::ENABLE != 0);

    let parts = VpParts {
        partition,
        shared,
        lp: area,
        apic,
        identity: *core.identity.lock(),
        counters: Counters::of(area.index.get()),
        role: Parent::new(),
    };
    let Some(extended) = Extended::parent(&mut VpFrames) else {
        return Err(Status::NO_MEMORY);
    };
    let Some(parent) = frames::place(FrameUse::Vp, Vp::new(parts, backend)) else {
        return Err(Status::NO_MEMORY);
    };
    let processor = Processor::new(area, extension, parent, extended);
    let Some(processor) = frames::place(FrameUse::Vp, processor) else {
        return Err(Status::NO_MEMORY);
    };
    // The LP does not come back.
    core::mem::forget(on);
    if lp::launched() == machine.lps.lock().len() as u64 {
        // The boot processor, and the last: nobody comes through the trampoline any more, and its page goes back to
        // firmware. The other LPs have interrupts off or run guests; none of them executes or reads it.
        address_space::unmap_trampoline(machine.info.trampoline);
    }
    log::debug!("launched");
    processor.run()
}
