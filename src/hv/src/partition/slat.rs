//! Guest physical memory of the parent: the machine's own, minus what the hypervisor keeps.
//!
//! | GPA | mapping |
//! | --- | --- |
//! | RAM, and everything else below 4 GiB | itself, readable, writable, executable |
//! | above RAM | itself, on first touch, a GiB at a time |
//! | the hypervisor's block | nothing; on first read a page of ones; writes are dropped, or go to a scratch page |
//! | its diagnostics area | itself, readable |
//! | the local APIC's page, the emulated PCI window | nothing: each access exits |
//! | overlay pages | the hypervisor's frame |

use ::frames::{FrameState, Slot};
use addr::{Gpa, Gpn, PAGE_SIZE, Spa, VpIndex};
use bootinfo::{BootInfo, SpaRange, Status};
use paging::mtrr::MtrrState;
use paging::{Attributes, Cleanup, EditError, Levels, PageSize, Table};
use pci_config::EcamWindow;
use synic::Overlay;
use tlfs::HvError;
use vpcore::seam::SlatFault;

use super::overlay::{OverlaySlot, Overlays};
use crate::arch::x86::{local_apic, mtrr};
use crate::mm::frames::{self, FrameUse};
use crate::mm::owners;
use crate::mm::phys::{self, SharedFrame};
use crate::mm::tables::Tables;
use crate::virt::SecondLevel;

const GIB: u64 = 1 << 30;

/// What [`Slat::fault`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// A mapping was added: run on.
    Mapped,
    /// The page of the hypervisor now shows ones or a scratch page: run on, and count.
    Hidden,
    /// A write to a read-only page: it is to be dropped.
    DropWrite,
    /// A write to a page of the hypervisor: it is to be dropped, or else sent to the scratch page.
    HiddenWrite,
    /// Nothing is there and nothing can be.
    Nothing,
}

/// Second-level tables of the parent.
pub struct Slat {
    table: Table,
    overlays: Overlays,
    mtrr: MtrrState,
    block: SpaRange,
    diagnostics: SpaRange,
    physical_bits: u8,
    /// End of what was mapped at the beginning: below it nothing is mapped later.
    mapped_end: u64,
    ones: Spa,
    /// What the parent sees in deposited frames.
    zeros: Spa,
    scratch: Spa,
}

impl Slat {
    /// Builds the map of the machine that `info` describes.
    pub fn new(
        info: &BootInfo,
        vp_count: usize,
        second: &SecondLevel,
        ecam: Option<&EcamWindow>,
        physical_bits: u8,
    ) -> Result<Self, Status> {
        let no_memory = |_: EditError| Status::NO_MEMORY;
        let levels = Levels::from_count(info.levels).ok_or(Status::BAD_BOOT_INFO)?;
        let frame = || frames::alloc(FrameUse::Slat, 1).ok_or(Status::NO_MEMORY);
        let mut slat = Self {
            table: Table::new(second.format, frame()?, levels, second.max_leaf),
            overlays: Overlays::new(vp_count)?,
            mtrr: mtrr::read(physical_bits),
            block: info.block,
            diagnostics: info.diagnostics,
            physical_bits,
            mapped_end: info.phys_map_end.next_multiple_of(GIB).max(4 * GIB),
            ones: frame()?,
            zeros: frame()?,
            scratch: frame()?,
        };
        fill_with_ones(slat.ones);
        let mut cleanup = slat.map_identity(0, slat.mapped_end)?;
        let mut tables = Tables(FrameUse::Slat);
        let mut hide = |slat: &mut Self, start: u64, len: u64| {
            let more = slat
                .table
                .unmap(&mut tables, start, len)
                .map_err(no_memory)?;
            cleanup.absorb(more, &mut tables);
            Ok::<(), Status>(())
        };
        hide(&mut slat, info.block.start.get(), info.block.len)?;
        hide(&mut slat, local_apic::physical_page().get(), PAGE_SIZE)?;
        if let Some(window) = ecam {
            hide(
                &mut slat,
                window.base().get(),
                (u64::from(window.last_bus()) + 1) << 20,
            )?;
        }
        let area = info.diagnostics;
        let more = slat
            .table
            .map(
                &mut tables,
                area.start.get(),
                area.len,
                area.start,
                Attributes::RO,
            )
            .map_err(no_memory)?;
        cleanup.absorb(more, &mut tables);
        // No LP uses the tables yet.
        slat.table.finish(&mut tables, cleanup);
        Ok(slat)
    }

    /// The top table.
    pub fn root(&self) -> Spa {
        self.table.root()
    }

    /// Depth of the tables.
    pub fn levels(&self) -> u32 {
        self.table.levels().count()
    }

    /// Its leaves of 4 KiB, 2 MiB and 1 GiB.
    pub fn leaves(&self) -> [u64; 3] {
        [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G].map(|size| self.table.leaves(size))
    }

    /// The boot processor's MTRRs, which the map follows.
    pub fn mtrr(&self) -> &MtrrState {
        &self.mtrr
    }

    /// The overlays, to look at.
    pub fn overlays(&self) -> &Overlays {
        &self.overlays
    }

    /// Frees tables that an edit took out. Every LP has flushed.
    pub fn finish(&mut self, cleanup: Cleanup) {
        self.table.finish(&mut Tables(FrameUse::Slat), cleanup);
    }

    fn map_identity(&mut self, start: u64, len: u64) -> Result<Cleanup, Status> {
        let mut cleanup = Cleanup::default();
        let mut tables = Tables(FrameUse::Slat);
        let done = if self.table.format().holds_memory_types() {
            let spa = Spa::new(start);
            paging::map_identity(
                &mut self.table,
                &mut tables,
                spa,
                len,
                Attributes::RWX,
                &self.mtrr,
                &mut cleanup,
            )
        } else {
            // The processor combines write-back with the MTRRs by itself.
            self.table
                .map(&mut tables, start, len, Spa::new(start), Attributes::RWX)
                .map(|more| {
                    cleanup.absorb(more, &mut tables);
                })
        };
        match done {
            Ok(()) => Ok(cleanup),
            Err(_) => {
                self.table.finish(&mut tables, cleanup);
                Err(Status::NO_MEMORY)
            }
        }
    }

    /// Judges a fault at a page that no device model of ours claims. `flush` in the second place: other LPs may
    /// hold the old translation.
    pub fn fault(&mut self, fault: &SlatFault) -> (FaultOutcome, Cleanup) {
        let gpa = fault.gpa;
        let spa = Spa::new(gpa.get());
        let nothing = (FaultOutcome::Nothing, Cleanup::default());
        if gpa.get() >> self.physical_bits != 0 {
            return nothing;
        }
        let page = gpa.align_down(PAGE_SIZE).get();
        if let Some(mapping) = self.table.lookup(&Tables(FrameUse::Slat), page) {
            let allowed = if fault.is_write {
                mapping.attributes.write
            } else if fault.is_execute {
                mapping.attributes.execute
            } else {
                mapping.attributes.read
            };
            if allowed {
                // Another LP was faster.
                return (FaultOutcome::Mapped, Cleanup::default());
            }
            // The first write to a deposited frame switches it to the scratch page: a dump or a late write of the parent's
            // kernel must not kill it.
            let is_deposited = matches!(
                owners::table().state(Spa::new(page)),
                FrameState::Deposited(_)
            );
            if is_deposited && fault.is_write {
                return match self.table.map(
                    &mut Tables(FrameUse::Slat),
                    page,
                    PAGE_SIZE,
                    self.scratch,
                    Attributes::RW,
                ) {
                    Ok(cleanup) => (FaultOutcome::Hidden, cleanup),
                    Err(_) => (FaultOutcome::DropWrite, Cleanup::default()),
                };
            }
            let is_hidden = self.block.contains(spa) && !self.diagnostics.contains(spa);
            if !is_hidden {
                let outcome = if fault.is_write {
                    FaultOutcome::DropWrite
                } else {
                    FaultOutcome::Nothing
                };
                return (outcome, Cleanup::default());
            }
        }
        let mut tables = Tables(FrameUse::Slat);
        if self.block.contains(spa) {
            if fault.is_write {
                return (FaultOutcome::HiddenWrite, Cleanup::default());
            }
            if fault.is_execute {
                return nothing;
            }
            return match self
                .table
                .map(&mut tables, page, PAGE_SIZE, self.ones, Attributes::RO)
            {
                Ok(cleanup) => (FaultOutcome::Hidden, cleanup),
                Err(_) => nothing,
            };
        }
        // A hole below this end is there on purpose: the APIC's page, the PCI window. Above it there is no RAM, so
        // neither the block nor an overlay, and what is mapped here replaces nothing.
        if gpa.get() < self.mapped_end {
            return nothing;
        }
        match self.map_identity(gpa.align_down(GIB).get(), GIB) {
            Ok(cleanup) => (FaultOutcome::Mapped, cleanup),
            Err(_) => nothing,
        }
    }

    /// Puts an unused frame of the parent into the pool of `slot`: from now on the parent reads zeros there.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`: it is not RAM. `OPERATION_DENIED`: it is deposited, in use, or under an overlay page.
    /// `INSUFFICIENT_MEMORY`: there is no table to split a large page; the parent can deposit to itself. Nothing changed.
    pub fn deposit(&mut self, spa: Spa, slot: Slot) -> Result<(Spa, Cleanup), HvError> {
        let page = Gpn::new(spa.get() / PAGE_SIZE);
        if self.overlays.frame_at(page).is_some() {
            return Err(HvError::OPERATION_DENIED);
        }
        owners::table().deposit(spa, slot).map_err(owners::status)?;
        let shown = self.table.map(
            &mut Tables(FrameUse::Slat),
            spa.get(),
            PAGE_SIZE,
            self.zeros,
            Attributes::RO,
        );
        match shown {
            Ok(cleanup) => Ok((spa, cleanup)),
            Err(_) => {
                // It was just marked.
                let _ = owners::table().withdraw(spa, slot);
                Err(HvError::INSUFFICIENT_MEMORY)
            }
        }
    }

    /// Gives a scrubbed frame of the pool of `slot` back to the parent.
    pub fn withdraw(&mut self, spa: Spa, slot: Slot) -> Cleanup {
        if owners::table().withdraw(spa, slot).is_err() {
            // It stays hidden: nobody is harmed, and the count of what came back shows it.
            log::error!("a withdrawn frame was not in its pool: {spa:?}");
            return Cleanup::default();
        }
        // The page has a table of its own since it was deposited, so none is needed.
        self.show(Gpn::new(spa.get() / PAGE_SIZE))
            .unwrap_or_default()
    }

    /// Puts one edit's cleanup to those before.
    pub fn absorb(&self, all: &mut Cleanup, more: Cleanup) {
        all.absorb(more, &mut Tables(FrameUse::Slat));
    }

    /// Shows the scratch page at a page of the hypervisor, for a write that cannot be decoded.
    ///
    /// # Errors
    /// `NO_MEMORY`; nothing changed.
    pub fn show_scratch(&mut self, gpa: Gpa) -> Result<Cleanup, Status> {
        let page = gpa.align_down(PAGE_SIZE).get();
        self.table
            .map(
                &mut Tables(FrameUse::Slat),
                page,
                PAGE_SIZE,
                self.scratch,
                Attributes::RW,
            )
            .map_err(|_| Status::NO_MEMORY)
    }

    /// Places the overlay `kind` of VP `vp` at `page`, or takes it away.
    ///
    /// # Errors
    /// `NO_MEMORY`; nothing changed.
    pub fn place_overlay(
        &mut self,
        kind: Overlay,
        vp: VpIndex,
        page: Option<Gpn>,
    ) -> Result<Cleanup, Status> {
        let slot = OverlaySlot::of(kind, vp);
        let old = self.overlays.page(slot);
        if old == page {
            return Ok(Cleanup::default());
        }
        // Looked at again under the lock: another LP may have deposited it since.
        let is_parents = |page: Gpn| {
            page.start()
                .is_some_and(|gpa| owners::is_parents(Spa::new(gpa.get())))
        };
        if page.is_some_and(|page| !is_parents(page)) {
            return Err(Status::NO_MEMORY);
        }
        self.overlays.place(slot, page);
        let mut cleanup = Cleanup::default();
        for affected in [page, old].into_iter().flatten() {
            match self.show(affected) {
                Ok(more) => cleanup.absorb(more, &mut Tables(FrameUse::Slat)),
                Err(error) => {
                    // Only the first edit can lack a table: taking an overlay away needs none.
                    self.overlays.place(slot, old);
                    self.finish(cleanup);
                    return Err(error);
                }
            }
        }
        Ok(cleanup)
    }

    /// Makes the tables show at `page` what the overlays say.
    fn show(&mut self, page: Gpn) -> Result<Cleanup, Status> {
        let start = page.start().ok_or(Status::NO_MEMORY)?.get();
        let mut tables = Tables(FrameUse::Slat);
        match self.overlays.frame_at(page) {
            Some((frame, writable)) => {
                let attributes = if writable {
                    Attributes::RW
                } else {
                    Attributes::RX
                };
                self.table
                    .map(&mut tables, start, PAGE_SIZE, frame.spa(), attributes)
                    .map_err(|_| Status::NO_MEMORY)
            }
            None => {
                // What is deposited is shown to nobody, whatever asks for it.
                if matches!(
                    owners::table().state(Spa::new(start)),
                    FrameState::Deposited(_)
                ) {
                    return Ok(Cleanup::default());
                }
                let mut cleanup = self.map_identity(start, PAGE_SIZE)?;
                let merged = self.table.coalesce(&mut tables, start);
                cleanup.absorb(merged, &mut tables);
                Ok(cleanup)
            }
        }
    }

    /// The frame of an overlay, wherever it is placed.
    pub fn overlay_frame(&self, kind: Overlay, vp: VpIndex) -> Option<SharedFrame> {
        self.overlays.frame(OverlaySlot::of(kind, vp))
    }
}

#[expect(unsafe_code, reason = "fills a frame of its own")]
fn fill_with_ones(frame: Spa) {
    // SAFETY: the caller has just allocated the frame.
    unsafe { phys::pointer(frame).write_bytes(0xFF, PAGE_SIZE as usize) };
}
