//! The parent partition: the machine itself, minus what the hypervisor keeps.

use addr::{Gpa, Gpn, PartitionId, Spa, VpIndex};
use apic::{Features, Inbox, Timing};
use bootinfo::{BootInfo, Status};
use hypercall::{NoAccess, PartitionIdentity};
use paging::Levels;
use pci_config::EcamWindow;
use spin::Mutex;
use synic::{Overlay, PartitionConfig, PartitionMsrs, QueueEntry, RefClock, VpSynic};
use x86::cpuid::leaf1_ecx;
use x86::efer;

use super::notices::{self, List};
use super::ports::{FrameChunks, Links};
use super::vmbus::VmBus;
use super::{Partition, PartitionCore, Seat, Slat, VpShared, VpTable};
use crate::arch::x86::insn;
use crate::arch::x86::lp::LpShared;
use crate::mm::frames::{self, FrameUse};
use crate::mm::phys::{self, SharedFrame};
use crate::virt::{Bitmaps, Facts};

/// Identifier of the parent partition.
pub const PARENT: PartitionId = PartitionId::new(1);

/// The parent. VP index and LP index are the same.
pub struct ParentPartition {
    /// What both kinds of partition have.
    pub core: PartitionCore,
    /// Guest physical memory.
    pub slat: Mutex<Slat>,
    /// What the virtualization extension is like.
    pub facts: Facts,
    /// Which ports and MSRs exit.
    pub bitmaps: Bitmaps,
    /// The same for all children.
    pub child_bitmaps: Bitmaps,
    /// The rate of the TSC never changes.
    pub has_invariant_tsc: bool,
    /// Depth of second-level tables.
    pub levels: Levels,
    /// The PCI configuration window that we emulate.
    pub ecam: Option<EcamWindow>,
    /// CF8 as the parent wrote it, and the lock of the real one.
    pub config_address: Mutex<pci_config::ConfigAddress>,
}

/// Messages that can wait for each VP of the parent.
const QUEUE_ENTRIES: usize = 16;

impl ParentPartition {
    /// Builds the parent of the machine that `info` describes.
    pub fn new(
        info: &BootInfo,
        lps: &'static [LpShared],
        facts: Facts,
        bitmaps: Bitmaps,
        child_bitmaps: Bitmaps,
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
        let lists = frames::place_slice(FrameUse::Partition, vps.len(), |_| List::new());
        notices::init(vps, lists.ok_or(Status::NO_MEMORY)?);
        let leaf_1 = insn::cpuid(1, 0).ecx;
        let base = info.ecam.base.get();
        let ecam = (base != 0)
            .then(|| EcamWindow::new(Gpa::new(base), u8::try_from(info.ecam.last_bus).ok()?))
            .flatten();
        let slat = Slat::new(
            info,
            lps.len(),
            &facts.second_level,
            ecam.as_ref(),
            physical_bits,
        )?;
        Ok(Self {
            core: PartitionCore {
                id: PARENT,
                msrs: Mutex::new(PartitionMsrs::new(config)),
                clock: RefClock::new(info.tsc_hz, tsc).ok_or(Status::BAD_BOOT_INFO)?,
                identity: Mutex::new(identity),
                vps: VpTable::Fixed(vps),
                timing: Timing::new(info.tsc_hz, info.apic_hz).ok_or(Status::BAD_BOOT_INFO)?,
                apic_features: Features {
                    x2apic: leaf_1 & leaf1_ecx::X2APIC != 0,
                    tsc_deadline: leaf_1 & leaf1_ecx::TSC_DEADLINE != 0,
                    cmci: false,
                    physical_bits,
                },
                tsc_hz: info.tsc_hz,
                physical_bits,
                has_gib_pages,
                efer_mask: efer_mask(),
                users: 0.into(),
                generation: 0.into(),
                links: Links::new(PARENT, true),
                vmbus: VmBus::off(),
                slot: 0.into(),
                tag: 0.into(),
            },
            slat: Mutex::new(slat),
            facts,
            bitmaps,
            child_bitmaps,
            has_invariant_tsc: invariant,
            levels: Levels::from_count(info.levels).ok_or(Status::BAD_BOOT_INFO)?,
            ecam,
            config_address: Mutex::new(pci_config::ConfigAddress::default()),
        })
    }
}

impl Partition for ParentPartition {
    fn core(&self) -> &PartitionCore {
        &self.core
    }

    fn parent(&self) -> &dyn Partition {
        self
    }

    fn chunks(&self) -> FrameChunks<'_> {
        FrameChunks::Reserve
    }

    fn server_frames(&self) -> FrameChunks<'_> {
        FrameChunks::Block
    }

    fn is_ram(&self, page: Gpn) -> bool {
        self.is_page(page)
    }

    fn overlay_frame(&self, kind: Overlay, vp: VpIndex) -> Option<SharedFrame> {
        self.slat.lock().overlay_frame(kind, vp)
    }

    fn is_page(&self, page: Gpn) -> bool {
        page.start()
            .is_some_and(|gpa| crate::mm::owners::is_parents(Spa::new(gpa.get())))
    }

    fn read(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess> {
        if buffer.len() > 4096 - gpa.page_offset() {
            return Err(NoAccess);
        }
        match self.slat.lock().overlays().frame_at(gpa.page()) {
            Some((frame, _)) => {
                frame.read(gpa.page_offset(), buffer);
                Ok(())
            }
            None => phys::read_guest(Spa::new(gpa.get()), buffer)
                .then_some(())
                .ok_or(NoAccess),
        }
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoAccess> {
        if bytes.len() > 4096 - gpa.page_offset() {
            return Err(NoAccess);
        }
        match self.slat.lock().overlays().frame_at(gpa.page()) {
            Some((frame, true)) => {
                frame.write(gpa.page_offset(), bytes);
                Ok(())
            }
            Some((_, false)) => Err(NoAccess),
            None => phys::write_guest(Spa::new(gpa.get()), bytes)
                .then_some(())
                .ok_or(NoAccess),
        }
    }

    /// Frames are read directly: a page table that lies under an overlay is walked as the RAM below it. That can
    /// mislead nobody but the guest that placed it there.
    fn read_entry(&self, gpa: Gpa, buffer: &mut [u8]) -> Result<(), NoAccess> {
        phys::read_guest(Spa::new(gpa.get()), buffer)
            .then_some(())
            .ok_or(NoAccess)
    }
}

/// Bits of EFER that the processors offer and a guest may set.
pub fn efer_mask() -> u64 {
    const FFXSR: u64 = 1 << 14;
    const AUTOMATIC_IBRS: u64 = 1 << 21;
    let features = insn::cpuid(0x8000_0001, 0).edx;
    let has_automatic_ibrs = insn::cpuid(0x8000_0000, 0).eax >= 0x8000_0021
        && insn::cpuid(0x8000_0021, 0).eax & 1 << 8 != 0;
    let offered = |is_there: bool, bit: u64| if is_there { bit } else { 0 };
    efer::SCE
        | efer::LME
        | efer::LMA
        | offered(features & 1 << 20 != 0, efer::NXE)
        | offered(features & 1 << 25 != 0, FFXSR)
        | offered(has_automatic_ibrs, AUTOMATIC_IBRS)
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
        let seat = Seat::Fixed(lps.next()?);
        Some(VpShared::new(
            VpIndex::new(index as u32),
            Inbox::new(),
            synic,
            seat,
        ))
    });
    vps.map(|vps| &*vps).ok_or(Status::NO_MEMORY)
}
