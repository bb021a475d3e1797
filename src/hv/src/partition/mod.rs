//! The parent partition: what its VPs share.
//!
//! Lock order: a VP's SynIC, then the partition's registers, then the SLAT. None is held across an entry.

mod overlay;
mod slat;

use core::sync::atomic::AtomicBool;

use addr::{Gpa, Gpn, PartitionId, Spa, VpIndex};
use apic::{Features, Inbox, Timing};
use bootinfo::{BootInfo, Status};
use hypercall::PartitionIdentity;
use paging::walk::GuestPhysical;
use pci_config::EcamWindow;
use spin::Mutex;
use synic::{PartitionConfig, PartitionMsrs, QueueEntry, RefClock, VpSynic};
use x86::cpuid::leaf1_ecx;

use crate::arch::x86::insn;
use crate::arch::x86::lp::LpShared;
use crate::mm::frames::{self, FrameUse};
use crate::mm::phys;
use crate::virt::Virt;

pub use slat::{FaultOutcome, Slat};

/// Identifier of the parent partition.
pub const PARENT: PartitionId = PartitionId::new(1);

/// The part of a VP that all LPs may touch.
pub struct VpShared {
    /// Interrupts and start-up events from other LPs.
    pub inbox: Inbox,
    /// Synthetic interrupt controller and timers.
    pub synic: Mutex<VpSynic<'static>>,
    /// Somebody made room for this VP's messages: its LP tries to deliver again.
    pub rescan: AtomicBool,
    /// The LP that runs it.
    pub lp: &'static LpShared,
}

/// The parent.
pub struct Partition<V: Virt> {
    /// Guest physical memory.
    pub slat: Mutex<Slat<V>>,
    /// Partition-wide synthetic registers.
    pub msrs: Mutex<PartitionMsrs>,
    /// Reference time.
    pub clock: RefClock,
    /// What its hypervisor leaves say.
    pub identity: PartitionIdentity,
    /// Its VPs, by VP index, which is the LP index.
    pub vps: &'static [VpShared],
    /// Which ports and MSRs exit.
    pub bitmaps: V::Bitmaps,
    /// Rates of its APIC timers.
    pub timing: Timing,
    /// What its APICs can do.
    pub apic_features: Features,
    /// The PCI configuration window that we emulate.
    pub ecam: Option<EcamWindow>,
    /// CF8 as the parent wrote it, and the lock of the real one.
    pub config_address: Mutex<pci_config::ConfigAddress>,
    /// Physical address bits.
    pub physical_bits: u8,
    /// Processors have 1 GiB pages.
    pub has_gib_pages: bool,
}

/// Messages that can wait for each VP of the parent.
const QUEUE_ENTRIES: usize = 16;

impl<V: Virt> Partition<V> {
    /// Builds the parent of the machine that `info` describes.
    pub fn new(
        info: &BootInfo,
        lps: &'static [LpShared],
        bitmaps: V::Bitmaps,
    ) -> Result<Self, Status> {
        let tsc = insn::rdtsc();
        let physical_bits = (insn::cpuid(0x8000_0008, 0).eax as u8).clamp(36, 52);
        let has_gib_pages = insn::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
        let invariant = insn::cpuid(0x8000_0000, 0).eax >= 0x8000_0007
            && insn::cpuid(0x8000_0007, 0).edx & 1 << 8 != 0;
        let identity = PartitionIdentity::parent(info.lp_count, physical_bits, invariant);
        let config = PartitionConfig {
            privileges: identity.privileges,
            features: identity.features,
            tsc_hz: info.tsc_hz,
            apic_hz: info.apic_hz,
        };
        let vps = place_vps(&config, lps)?;
        let leaf_1 = insn::cpuid(1, 0).ecx;
        let base = info.ecam.base.get();
        let ecam = (base != 0)
            .then(|| EcamWindow::new(Gpa::new(base), u8::try_from(info.ecam.last_bus).ok()?))
            .flatten();
        let slat = Slat::new(
            info,
            lps.len(),
            V::has_gib_leaves(),
            ecam.as_ref(),
            physical_bits,
        )?;
        Ok(Self {
            slat: Mutex::new(slat),
            msrs: Mutex::new(PartitionMsrs::new(config)),
            clock: RefClock::new(info.tsc_hz, tsc).ok_or(Status::BAD_BOOT_INFO)?,
            identity,
            vps,
            bitmaps,
            timing: Timing::new(info.tsc_hz, info.apic_hz).ok_or(Status::BAD_BOOT_INFO)?,
            apic_features: Features {
                x2apic: leaf_1 & leaf1_ecx::X2APIC != 0,
                tsc_deadline: leaf_1 & leaf1_ecx::TSC_DEADLINE != 0,
                cmci: false,
                physical_bits,
            },
            ecam,
            config_address: Mutex::new(pci_config::ConfigAddress::default()),
            physical_bits,
            has_gib_pages,
        })
    }

    /// Whether `page` lies in the parent's address space and may carry an overlay.
    pub fn is_page(&self, page: Gpn) -> bool {
        page.start()
            .is_some_and(|gpa| crate::mm::ram::is_guest_ram(Spa::new(gpa.get())))
    }

    /// Copies guest memory at `gpa`, within one page, as the guest's processors would read it. False where there is
    /// no memory.
    pub fn read(&self, gpa: Gpa, buffer: &mut [u8]) -> bool {
        if buffer.len() > 4096 - gpa.page_offset() {
            return false;
        }
        match self.slat.lock().overlays().frame_at(gpa.page()) {
            Some((frame, _)) => {
                frame.read(gpa.page_offset(), buffer);
                true
            }
            None => phys::read_guest(Spa::new(gpa.get()), buffer),
        }
    }

    /// Copies to guest memory at `gpa`, within one page. False where there is no memory or it is read-only.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> bool {
        if bytes.len() > 4096 - gpa.page_offset() {
            return false;
        }
        match self.slat.lock().overlays().frame_at(gpa.page()) {
            Some((frame, true)) => {
                frame.write(gpa.page_offset(), bytes);
                true
            }
            Some((_, false)) => false,
            None => phys::write_guest(Spa::new(gpa.get()), bytes),
        }
    }
}

/// The shared parts of the VPs, one for each of `lps`.
fn place_vps(
    config: &PartitionConfig,
    lps: &'static [LpShared],
) -> Result<&'static [VpShared], Status> {
    let queues = frames::place_slice(FrameUse::Partition, lps.len() * QUEUE_ENTRIES, |_| {
        QueueEntry::EMPTY
    })
    .ok_or(Status::NO_MEMORY)?;
    let mut queues = queues.chunks_mut(QUEUE_ENTRIES);
    let mut lps = lps.iter();
    let vps = frames::place_with(FrameUse::Partition, lps.len(), |index| {
        let synic = VpSynic::new(config, VpIndex::new(index as u32), queues.next()?);
        Some(VpShared {
            inbox: Inbox::new(),
            synic: Mutex::new(synic),
            rescan: AtomicBool::new(false),
            lp: lps.next()?,
        })
    });
    vps.map(|vps| &*vps).ok_or(Status::NO_MEMORY)
}

/// The parent's memory for walks of its page tables.
///
/// Reads frames directly: a page table that lies under an overlay is walked as the RAM below it. That can mislead
/// nobody but the guest that placed it there.
#[derive(Clone, Copy, Debug)]
pub struct ParentMemory;

impl GuestPhysical for ParentMemory {
    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        phys::read_guest_u64(Spa::new(gpa.get()))
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        let mut bytes = [0; 4];
        phys::read_guest(Spa::new(gpa.get()), &mut bytes).then(|| u32::from_le_bytes(bytes))
    }
}
