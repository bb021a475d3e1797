//! The diagnostics area: exit counters, uses of memory and the log ring, memory that the parent may read.
#![expect(unsafe_code, reason = "the owner of the diagnostics area")]

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bootinfo::BootInfo;
use diagnostics::{Contents, Header, LOG_WRITTEN_OFFSET, NAME_LEN, ROW_HEADER_LEN, USE_LEN};
use spin::Once;

use crate::arch::x86::insn;
use crate::mm::{frames, phys};

macro_rules! counters {
    ($($variant:ident $name:literal)*) => {
        /// What is counted for each VP.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "`docs/diagnostics.md` says what they count")]
        pub enum Counter { $($variant),* }

        /// Names of [`Counter`], in its order.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

counters! {
    Interrupt "exit.interrupt"
    Nmi "exit.nmi"
    MachineCheck "exit.machine_check"
    InterruptWindow "exit.interrupt_window"
    NmiWindow "exit.nmi_window"
    Cpuid "exit.cpuid"
    Hlt "exit.hlt"
    Rdmsr "exit.rdmsr"
    Wrmsr "exit.wrmsr"
    Hypercall "exit.hypercall"
    Xsetbv "exit.xsetbv"
    CacheFlush "exit.cache_flush"
    Mwait "exit.mwait"
    Undefined "exit.undefined"
    Control "exit.control_register"
    Io "exit.io"
    Slat "exit.slat"
    TripleFault "exit.triple_fault"
    Init "exit.init"
    InvalidState "exit.invalid_state"
    Unknown "exit.unknown"
    ApicMmio "apic.mmio"
    ApicEoi "apic.eoi"
    ApicIpi "apic.ipi"
    DeviceEdge "interrupt.device_edge"
    DeviceLevel "interrupt.device_level"
    DeviceExtint "interrupt.extint"
    Timer "interrupt.timer"
    Kick "interrupt.kick"
    Unexpected "interrupt.unexpected"
    CState "port.c_state"
    Ecam "pci.ecam"
    UnlistedRead "msr.unlisted_read"
    UnlistedWrite "msr.unlisted_write"
    HiddenMemory "memory.hidden"
    LazyMap "memory.lazy_map"
    Delivered "interrupt.delivered"
    SpinWait "hypercall.spin_wait"
    SynicCall "hypercall.synic"
    MmuCall "hypercall.mmu"
    InterruptCall "hypercall.interrupt"
    MemoryCall "hypercall.memory"
    VpCall "hypercall.vp"
    PoolCall "hypercall.pool"
    Entries "entries"
}

struct Area {
    base: *mut u8,
    header: Header,
    tsc_at_start: u64,
}

// SAFETY: the area is reached through atomics only.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

static AREA: Once<Area> = Once::new();

impl Area {
    fn byte(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < self.header.log_offset as usize + self.header.log_len as usize);
        // SAFETY: the offset lies in the area, which is mapped and used through atomics only.
        unsafe { &*self.base.wrapping_add(offset).cast() }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: as for `byte`; all words are aligned by the layout.
        unsafe { &*self.base.wrapping_add(offset).cast() }
    }

    /// Offsets of the rows for VPs of children.
    fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        let len = self.header.counters_stride as usize + ROW_HEADER_LEN;
        let first = self.header.children_offset as usize;
        (0..self.header.child_rows as usize).map(move |row| first + row * len)
    }
}

/// Lays out the area that the record names. False where it is missing or too small; then nothing is kept.
pub fn init(info: &BootInfo) -> bool {
    let range = info.diagnostics;
    let contents = Contents {
        vps: info.lp_count,
        counters: NAMES.len() as u32,
        uses: frames::USE_NAMES.len() as u32,
    };
    let Some(header) = diagnostics::layout(range.len, &contents, info.tsc_hz) else {
        return false;
    };
    let base = phys::pointer(range.start);
    // SAFETY: the range is part of the block and nobody's but ours.
    unsafe { base.write_bytes(0, range.len as usize) };
    // SAFETY: as above; the area is page-aligned.
    unsafe { base.cast::<Header>().write(header) };
    let area = AREA.call_once(|| Area {
        base,
        header,
        tsc_at_start: insn::rdtsc(),
    });
    let write = |at: usize, name: &str| {
        for (offset, byte) in name.bytes().take(NAME_LEN).enumerate() {
            area.byte(at + offset).store(byte, Ordering::Relaxed);
        }
    };
    for (index, name) in NAMES.iter().enumerate() {
        write(header.names_offset as usize + index * NAME_LEN, name);
    }
    for (index, name) in frames::USE_NAMES.iter().enumerate() {
        write(header.uses_offset as usize + index * USE_LEN, name);
    }
    frames::show_uses();
    true
}

/// Shows how many frames are used for `purpose`, an index of [`frames::USE_NAMES`].
pub fn show_use(purpose: usize, count: u64) {
    let Some(area) = AREA.get() else { return };
    if purpose < area.header.use_count as usize {
        let at = area.header.uses_offset as usize + purpose * USE_LEN;
        area.word(at + NAME_LEN).store(count, Ordering::Relaxed);
    }
}

/// Appends a byte to the log ring.
pub fn log_byte(byte: u8) {
    let Some(area) = AREA.get() else { return };
    let position = area
        .word(LOG_WRITTEN_OFFSET)
        .fetch_add(1, Ordering::Relaxed);
    let offset = (position % u64::from(area.header.log_len)) as usize;
    area.byte(area.header.log_offset as usize + offset)
        .store(byte, Ordering::Relaxed);
}

/// Appends a line to the log ring alone.
pub fn log_line(line: fmt::Arguments<'_>) {
    struct Ring;
    impl fmt::Write for Ring {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            text.bytes().for_each(log_byte);
            Ok(())
        }
    }
    // Writing to the ring does not fail.
    let _ = fmt::write(&mut Ring, line);
    log_byte(b'\n');
}

/// Microseconds since the area was laid out; 0 before.
pub fn microseconds() -> u64 {
    AREA.get().map_or(0, |area| {
        let ticks = insn::rdtsc().saturating_sub(area.tsc_at_start);
        (u128::from(ticks) * 1_000_000 / u128::from(area.header.tsc_hz.max(1))) as u64
    })
}

/// Writes a line for each VP to the log, with its counters that are not zero.
pub fn log_counters() {
    let vps = AREA.get().map_or(0, |area| area.header.vp_count);
    for vp in 0..vps {
        log::info!("counters: vp{vp}{}", Counters::of(vp));
    }
}

/// The counters of one VP, written by its LP alone.
#[derive(Clone, Copy, Debug)]
pub struct Counters(&'static [AtomicU64; NAMES.len()]);

/// Counters that nobody reads, for VPs without a place in the area.
static NOWHERE: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

impl Counters {
    /// The counters of VP `vp`.
    pub fn of(vp: u32) -> Self {
        let Some(area) = AREA.get().filter(|area| vp < area.header.vp_count) else {
            return Self(&NOWHERE);
        };
        let offset = area.header.counters_offset as usize
            + vp as usize * area.header.counters_stride as usize;
        // SAFETY: the layout keeps `NAMES.len()` aligned words for each VP below `vp_count`.
        Self(unsafe { &*area.base.wrapping_add(offset).cast() })
    }

    /// A row of its own, all zero, for VP `vp` of the child `partition`; where all are taken, what it does is not
    /// counted.
    pub fn take_row(partition: u64, vp: u32) -> Self {
        let Some(area) = AREA.get() else {
            return Self(&NOWHERE);
        };
        for row in area.rows() {
            let owner = area.word(row);
            if owner
                .compare_exchange(0, partition, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                area.word(row + 8).store(vp.into(), Ordering::Relaxed);
                // SAFETY: the layout keeps `NAMES.len()` aligned words in each row, after its header.
                return Self(unsafe { &*area.base.wrapping_add(row + ROW_HEADER_LEN).cast() });
            }
        }
        Self(&NOWHERE)
    }

    /// Gives the row of [`Counters::take_row`] back: the VP has ended, and nobody else counts there.
    pub fn give_back(self) {
        let Some(area) = AREA.get() else { return };
        let own = self.0.as_ptr().addr().wrapping_sub(area.base.addr());
        let row = area.rows().find(|row| row + ROW_HEADER_LEN == own);
        if let Some(row) = row {
            self.0
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
            area.word(row).store(0, Ordering::Release);
        }
    }

    /// How often it was counted; 0 where it is counted nowhere.
    pub fn get(self, counter: Counter) -> u64 {
        if core::ptr::eq(self.0, &NOWHERE) {
            return 0;
        }
        self.0
            .get(counter as usize)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Counts one.
    #[inline]
    pub fn add(self, counter: Counter) {
        let Some(word) = self.0.get(counter as usize) else {
            return;
        };
        // One writer, so no locked instruction is needed.
        word.store(
            word.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }
}

impl fmt::Display for Counters {
    /// ` name=value` for each counter that is not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, word) in NAMES.iter().zip(self.0) {
            let value = word.load(Ordering::Relaxed);
            if value != 0 {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}
