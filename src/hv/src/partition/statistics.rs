//! Pages of statistics, which the parent places in its own memory: of the hypervisor, of LPs, partitions and VPs.
//!
//! What is counted lies elsewhere: in the exit counters, in [`Tally`], in the scheduler's [`LpTally`]. It is copied into the
//! pages when a VP's turn on its LP ends, when an LP wakes, and after calls that change a partition. So an entry and an
//! exit cost nothing, and a page lags by a turn at most.

use core::sync::atomic::{AtomicBool, Ordering};

use addr::{LpIndex, VpIndex};
use spin::{Mutex, Once};
use tlfs::HvError;
use tlfs::call::StatsArea;
use tlfs::statistics::{self as n, Index};

use super::state_page::PinnedPage;
use crate::diagnostics::{Counter as C, Counters};
use crate::mm::frames::{self, FrameUse};

/// An LP whose page is shown, or its VP's of the parent, writes it this often at least, per second.
const TURNS_PER_SECOND: u64 = 10;

/// The pages of one object: what it knows of itself, what its parent may know. Both hold the same.
pub struct Pages {
    pages: Mutex<[Option<PinnedPage>; 2]>,
    is_on: AtomicBool,
}

impl Pages {
    /// None.
    pub const fn new() -> Self {
        Self {
            pages: Mutex::new([None, None]),
            is_on: AtomicBool::new(false),
        }
    }

    /// Whether there is any.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Shows an area in `page`, with zeros first, or no longer in any.
    ///
    /// # Errors
    /// `OBJECT_IN_USE`: it is shown in a page already. `NOT_FOUND`: it is shown in none.
    pub fn change(&self, area: StatsArea, page: Option<PinnedPage>) -> Result<(), HvError> {
        let mut pages = self.pages.lock();
        let slot = pages.get_mut(area as usize);
        match (slot, page) {
            (Some(slot @ None), Some(page)) => {
                page.write(0, &[0; 4096]);
                *slot = Some(page);
            }
            (_, Some(_)) => return Err(HvError::OBJECT_IN_USE),
            (Some(slot @ Some(_)), None) => *slot = None,
            (_, None) => return Err(HvError::NOT_FOUND),
        }
        let is_on = pages.iter().any(Option::is_some);
        self.is_on.store(is_on, Ordering::Relaxed);
        Ok(())
    }

    /// Gives all pages back.
    pub fn clear(&self) {
        let mut pages = self.pages.lock();
        self.is_on.store(false, Ordering::Relaxed);
        *pages = [None, None];
    }

    /// Writes counters into the pages.
    pub fn show(&self, values: &[(Index, u64)]) {
        for page in self.pages.lock().iter().flatten() {
            for &(index, value) in values {
                page.set_word(index.into(), value);
            }
        }
    }
}

/// What is counted of a VP beside its exits. It belongs to the LP that runs the VP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    ticks: u64,
    dispatches: u64,
    migrations: u64,
    last_lp: u32,
    messages: [u64; 3],
}

/// What a message to the parent is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A port.
    Port,
    /// Memory.
    Memory,
    /// Something else.
    Other,
}

impl Tally {
    /// A turn on `lp` begins.
    pub fn dispatched(&mut self, lp: LpIndex) {
        self.migrations += u64::from(self.dispatches != 0 && self.last_lp != lp.get());
        self.dispatches += 1;
        self.last_lp = lp.get();
    }

    /// It ran for `ticks` of the TSC.
    pub fn ran(&mut self, ticks: u64) {
        self.ticks = self.ticks.wrapping_add(ticks);
    }

    /// The parent was told of something.
    pub fn told(&mut self, about: About) {
        if let Some(count) = self.messages.get_mut(about as usize) {
            *count += 1;
        }
    }

    /// Writes a VP's page, where there is one.
    #[inline]
    pub fn show(&self, pages: &Pages, counters: Counters, tsc_hz: u64) {
        if pages.is_on() {
            self.write(pages, counters, tsc_hz);
        }
    }

    #[inline(never)]
    fn write(&self, pages: &Pages, counters: Counters, tsc_hz: u64) {
        for page in pages.pages.lock().iter().flatten() {
            for &(index, of) in EXITS {
                page.set_word(index.into(), sum(counters, of));
            }
        }
        let named = [
            C::SpinWait,
            C::SynicCall,
            C::MmuCall,
            C::InterruptCall,
            C::MemoryCall,
            C::VpCall,
            C::PoolCall,
        ];
        let others = counters
            .get(C::Hypercall)
            .saturating_sub(sum(counters, &named));
        let [ports, memory, other] = self.messages;
        pages.show(&[
            (n::vp::TOTAL_RUN_TIME, units(self.ticks, tsc_hz)),
            (n::vp::OTHER_HYPERCALLS, others),
            (n::vp::IO_INTERCEPT_MESSAGES, ports),
            (n::vp::MEMORY_INTERCEPT_MESSAGES, memory),
            (n::vp::OTHER_MESSAGES, other),
            (n::vp::LOGICAL_PROCESSOR_MIGRATIONS, self.migrations),
            (n::vp::LOGICAL_PROCESSOR_DISPATCHES, self.dispatches),
        ]);
    }
}

fn sum(counters: Counters, of: &[C]) -> u64 {
    of.iter().map(|&counter| counters.get(counter)).sum()
}

/// The counters of a VP that are sums of exit counters.
static EXITS: &[(Index, &[C])] = &[
    (n::vp::HYPERCALLS, &[C::Hypercall]),
    (n::vp::CONTROL_REGISTER_ACCESSES, &[C::Control]),
    (n::vp::IO_INSTRUCTIONS, &[C::Io]),
    (n::vp::HLT_INSTRUCTIONS, &[C::Hlt]),
    (n::vp::MWAIT_INSTRUCTIONS, &[C::Mwait]),
    (n::vp::CPUID_INSTRUCTIONS, &[C::Cpuid]),
    (n::vp::MSR_ACCESSES, &[C::Rdmsr, C::Wrmsr]),
    (
        n::vp::OTHER_INTERCEPTS,
        &[
            C::Xsetbv,
            C::CacheFlush,
            C::Undefined,
            C::TripleFault,
            C::Init,
            C::InvalidState,
            C::Unknown,
            C::MachineCheck,
        ],
    ),
    (n::vp::EXTERNAL_INTERRUPTS, &[C::Interrupt, C::Nmi]),
    (
        n::vp::PENDING_INTERRUPTS,
        &[C::InterruptWindow, C::NmiWindow],
    ),
    (n::vp::APIC_MMIO_ACCESSES, &[C::ApicMmio]),
    (n::vp::APIC_EOI_ACCESSES, &[C::ApicEoi]),
    (n::vp::APIC_IPIS_SENT, &[C::ApicIpi]),
    (n::vp::VIRTUAL_INTERRUPTS, &[C::Delivered]),
    (n::vp::HARDWARE_INTERRUPTS, &DEVICES),
    (n::vp::NESTED_PAGE_FAULT_INTERCEPTS, &[C::Slat]),
    (n::vp::LONG_SPIN_WAIT_HYPERCALLS, &[C::SpinWait]),
    (n::vp::SYNTHETIC_INTERRUPT_HYPERCALLS, &[C::SynicCall]),
    (n::vp::VIRTUAL_MMU_HYPERCALLS, &[C::MmuCall]),
    (n::vp::VIRTUAL_INTERRUPT_HYPERCALLS, &[C::InterruptCall]),
    (n::vp::GPA_SPACE_HYPERCALLS, &[C::MemoryCall]),
    (n::vp::VIRTUAL_PROCESSOR_HYPERCALLS, &[C::VpCall]),
    (n::vp::DEPOSIT_HYPERCALLS, &[C::PoolCall]),
];

const DEVICES: [C; 3] = [C::DeviceEdge, C::DeviceLevel, C::DeviceExtint];

/// What is counted of an LP, by that LP alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct LpTally {
    /// Its VP of the parent.
    pub parent: Tally,
    started: u64,
    idle_ticks: u64,
    halts: u64,
    switches: u64,
}

impl LpTally {
    /// Of an LP that begins at `now` of the TSC.
    pub fn new(lp: LpIndex, now: u64) -> Self {
        let mut tally = Self {
            started: now,
            ..Self::default()
        };
        tally.parent.dispatched(lp);
        tally
    }

    /// Another VP was loaded.
    pub fn switched(&mut self) {
        self.switches += 1;
    }

    /// The LP was halted for `ticks` of the TSC.
    pub fn halted(&mut self, ticks: u64) {
        self.idle_ticks += ticks;
        self.halts += 1;
    }

    /// Writes the pages of LP `lp` and of its VP of the parent, where there are any.
    pub fn show(&self, lp: LpIndex, now: u64, tsc_hz: u64) {
        let Some(pages) = of_lp(lp.get()) else { return };
        let counters = Counters::of(lp.get());
        self.parent.show(&pages.parent_vp, counters, tsc_hz);
        if !pages.lp.is_on() {
            return;
        }
        let time = now.saturating_sub(self.started);
        let ran = time.saturating_sub(self.idle_ticks);
        pages.lp.show(&[
            (n::lp::GLOBAL_TIME, units(time, tsc_hz)),
            (n::lp::TOTAL_RUN_TIME, units(ran, tsc_hz)),
            (n::lp::HARDWARE_INTERRUPTS, sum(counters, &DEVICES)),
            (n::lp::CONTEXT_SWITCHES, self.switches),
            (n::lp::INTER_PROCESSOR_INTERRUPTS, counters.get(C::Kick)),
            (n::lp::TIMER_INTERRUPTS, counters.get(C::Timer)),
            (n::lp::PROCESSOR_HALTS, self.halts),
            (n::lp::ROOT_VP_INDEX, lp.get().into()),
        ]);
    }

    /// When a turn that begins at `now` ends at the latest, so that the pages of its LP are written now and then.
    pub fn limit(lp: LpIndex, now: u64, tsc_hz: u64) -> u64 {
        match of_lp(lp.get()) {
            Some(pages) if pages.lp.is_on() || pages.parent_vp.is_on() => {
                now.saturating_add(tsc_hz / TURNS_PER_SECOND)
            }
            _ => u64::MAX,
        }
    }
}

/// Pages of an LP, and of its VP of the parent.
struct LpPages {
    lp: Pages,
    parent_vp: Pages,
}

static LPS: Once<&'static [LpPages]> = Once::new();
static HYPERVISOR: Pages = Pages::new();
static PARENT: Pages = Pages::new();

/// Makes room for pages of `lps` LPs. `None` when there is no memory.
pub fn init(lps: usize) -> Option<()> {
    let pages = frames::place_slice(FrameUse::Lp, lps, |_| LpPages {
        lp: Pages::new(),
        parent_vp: Pages::new(),
    })?;
    LPS.call_once(|| pages);
    Some(())
}

fn of_lp(index: u32) -> Option<&'static LpPages> {
    LPS.get()?.get(index as usize)
}

/// Those of the hypervisor.
pub fn of_hypervisor() -> &'static Pages {
    &HYPERVISOR
}

/// Those of the parent partition.
pub fn of_parent() -> &'static Pages {
    &PARENT
}

/// Those of LP `lp`.
pub fn of(lp: LpIndex) -> Option<&'static Pages> {
    of_lp(lp.get()).map(|pages| &pages.lp)
}

/// Those of VP `vp` of the parent.
pub fn of_parent_vp(vp: VpIndex) -> Option<&'static Pages> {
    of_lp(vp.get()).map(|pages| &pages.parent_vp)
}

/// Gives back all pages that are about no child: the parent's kernel goes.
pub fn clear() {
    HYPERVISOR.clear();
    PARENT.clear();
    for pages in LPS.get().into_iter().flat_map(|all| all.iter()) {
        pages.lp.clear();
        pages.parent_vp.clear();
    }
}

/// What the pages of the hypervisor and of the parent partition show beside what lies here.
pub struct Machine {
    /// LPs.
    pub lps: u64,
    /// Partitions but the parent.
    pub children: u64,
    /// Their VPs.
    pub vps: u64,
    /// Leaves of the parent's second-level tables, of 4 KiB, 2 MiB and 1 GiB.
    pub leaves: [u64; 3],
}

/// Writes the pages of the hypervisor and of the parent partition, where there are any.
pub fn show_machine(machine: impl FnOnce() -> Machine) {
    if !HYPERVISOR.is_on() && !PARENT.is_on() {
        return;
    }
    let Machine {
        lps,
        children,
        vps,
        leaves,
    } = machine();
    HYPERVISOR.show(&[
        (n::hypervisor::LOGICAL_PROCESSORS, lps),
        (n::hypervisor::PARTITIONS, children + 1),
        (n::hypervisor::VIRTUAL_PROCESSORS, vps + lps),
    ]);
    PARENT.show(&[
        (n::partition::VIRTUAL_PROCESSORS, lps),
        (n::partition::PARTITION_ID, super::parent::PARENT.get()),
        (n::partition::ACTIVE_CHILD_PARTITIONS, children),
    ]);
    show_frames(|| leaves);
}

/// Writes into the same pages what a frame changes that comes from the parent or goes back; `leaves` as in [`Machine`].
pub fn show_frames(leaves: impl FnOnce() -> [u64; 3]) {
    if !HYPERVISOR.is_on() && !PARENT.is_on() {
        return;
    }
    let [small, large, huge] = leaves();
    let (used, _) = frames::usage();
    HYPERVISOR.show(&[(n::hypervisor::TOTAL_PAGES, used.iter().sum())]);
    PARENT.show(&[
        (n::partition::GPA_PAGES_4K, small),
        (n::partition::GPA_PAGES_2M, large),
        (n::partition::GPA_PAGES_1G, huge),
    ]);
}

/// Ticks of the TSC in units of 100 ns.
fn units(ticks: u64, tsc_hz: u64) -> u64 {
    (u128::from(ticks) * 10_000_000 / u128::from(tsc_hz.max(1))) as u64
}
