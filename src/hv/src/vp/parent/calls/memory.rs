//! Frames that the parent deposits, and what it maps into children.

use addr::{Gpn, Gva, PAGE_SIZE, Spa};
use frames::Slot;
use hypercall::{Body, Progress};
use paging::walk::{self, Access};
use paging::{Backing, Mapping, MarkChange, Marks, MemoryType, PageSize};
use tlfs::HvError;
use tlfs::call::{
    AccessGpaCode, AccessGpaOutput, AccessState, AccessStateFlags, GetAccessStates, LARGE_PAGES,
    MapFlags, MapGpaPages, PartitionOnly, ReadGpa, ReadGpaOutput, Translate, TranslateCode,
    TranslateFlags, Translation, UnmapFlags, UnmapGpaPages, Withdraw, WriteGpa,
};

use super::super::ParentVp;
use super::{BURST, LARGE_BURST, Target, frame, word};
use crate::mm::owners;
use crate::partition::TableMemory;
use crate::partition::child::State;

/// Page number of the local APICs' registers.
const APIC_PAGE: u64 = x86::msr::apic_base::DEFAULT_ADDRESS / PAGE_SIZE;

impl ParentVp {
    /// HvCallDepositMemory: frames of the parent become the pool of a child, or its own. Those before the one that is refused stay
    /// deposited, and are counted as done.
    pub(super) fn deposit(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = PartitionOnly::decode(body.header())?;
        let target = self.target(call.partition)?;
        self.alone_with(&target, |vp| vp.deposit_to(&target, body))
    }

    /// Calls `change` while no other call deposits to, withdraws from or deletes `target`; otherwise the call is made again.
    fn alone_with(
        &mut self,
        target: &Target,
        change: impl FnOnce(&mut Self) -> Result<Progress, HvError>,
    ) -> Result<Progress, HvError> {
        match target {
            Target::Own => change(self),
            Target::Child(child) => child
                .exclusively(|| {
                    if child.properties.lock().state == State::Deleted {
                        return Err(HvError::INVALID_PARTITION_ID);
                    }
                    change(self)
                })
                .unwrap_or(Ok(Progress::Yield)),
        }
    }

    fn deposit_to(&mut self, target: &Target, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let slot = match target {
            Target::Own => Slot::PARENT,
            Target::Child(child) => {
                Slot::new(child.slot as u16).ok_or(HvError::INVALID_PARTITION_ID)?
            }
        };
        let mut taken = [Spa::new(0); BURST];
        let mut count = 0;
        let mut failure = None;
        let list = body.remaining_input();
        let edited = self.edit_slat(|slat| {
            let mut all = paging::Cleanup::default();
            for (place, element) in taken.iter_mut().zip(list.chunks_exact(8)) {
                match frame(word(element)).and_then(|spa| slat.deposit(spa, slot)) {
                    Ok((spa, cleanup)) => {
                        slat.absorb(&mut all, cleanup);
                        *place = spa;
                        count += 1;
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            Ok(all)
        });
        debug_assert!(edited.is_ok());
        // No processor reaches them through the parent's tables any more.
        for spa in taken.iter().take(count) {
            match target {
                Target::Own => crate::mm::frames::donate(*spa),
                Target::Child(child) => child.take_deposit(*spa),
            }
        }
        body.complete(count as u16);
        match failure {
            Some(error) => Err(error),
            None if body.remaining() == 0 => Ok(Progress::Done),
            None => Ok(Progress::Yield),
        }
    }

    /// HvCallWithdrawMemory: gives back what a pool does not use, cleared, and names it in the output.
    pub(super) fn withdraw(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = Withdraw::decode(body.header())?;
        let target = self.target(call.partition)?;
        self.alone_with(&target, |vp| vp.withdraw_from(&target, body))
    }

    fn withdraw_from(&mut self, target: &Target, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let mut given = [Spa::new(0); BURST];
        let mut count = 0;
        let wanted = usize::from(body.remaining()).min(BURST);
        for place in given.iter_mut().take(wanted) {
            let spa = match target {
                Target::Own => crate::mm::frames::reclaim(),
                Target::Child(child) => child.pool.lock().withdraw(),
            };
            let Some(spa) = spa else { break };
            *place = spa;
            count += 1;
        }
        let given = given.get(..count).unwrap_or(&[]);
        let slot = match target {
            Target::Own => Slot::PARENT,
            Target::Child(child) => {
                Slot::new(child.slot as u16).ok_or(HvError::INVALID_PARTITION_ID)?
            }
        };
        let edited = self.edit_slat(|slat| {
            let mut all = paging::Cleanup::default();
            for &spa in given {
                let cleanup = slat.withdraw(spa, slot);
                slat.absorb(&mut all, cleanup);
            }
            Ok(all)
        });
        debug_assert!(edited.is_ok());
        for spa in given {
            let Some(mut element) = body.element() else {
                break;
            };
            element.answer(&(spa.get() / PAGE_SIZE).to_le_bytes());
            body.complete_element();
        }
        if body.remaining() == 0 {
            Ok(Progress::Done)
        } else if count < wanted {
            Err(HvError::NO_RESOURCES)
        } else {
            Ok(Progress::Yield)
        }
    }

    /// HvCallMapGpaPages, of 4 KiB or 2 MiB each. Pages before the one that is refused stay mapped, and are counted as done.
    pub(super) fn map_gpa(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = MapGpaPages::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        let is_large = call.flags.contains(MapFlags::LARGE);
        let unit = if is_large { LARGE_PAGES } else { 1 };
        let list = body.remaining_input();
        let done_before = u64::from(body.done());
        let base = |done: u64| {
            done.checked_mul(unit)
                .and_then(|pages| call.base.get().checked_add(pages))
                .map(Gpn::new)
                .ok_or(HvError::INVALID_PARAMETER)
        };
        if is_large && !call.base.get().is_multiple_of(LARGE_PAGES) {
            return Err(HvError::INVALID_PARAMETER);
        }
        if call.flags.contains(MapFlags::NO_ACCESS) {
            return self.sweep(body, &child, base(done_before)?, unit, false);
        }
        let has = |flag| call.flags.contains(flag);
        let rights = gpa_space::rights(
            has(MapFlags::READ),
            has(MapFlags::WRITE),
            has(MapFlags::KERNEL_EXECUTE),
            has(MapFlags::USER_EXECUTE),
        );
        let mut attributes = rights
            .ok_or(HvError::INVALID_PARAMETER)?
            .with_backing(Backing::Counted);
        if has(MapFlags::NOT_CACHED) {
            attributes = attributes.with_type(MemoryType::Uncacheable);
        }
        let size = if is_large {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        let most = if is_large { LARGE_BURST } else { BURST };
        let mut count = 0u64;
        let done = child.edit_memory(self.lp, |memory, pool, pending| {
            for element in list.chunks_exact(8).take(most) {
                let page = base(done_before + count)?;
                let spa = frame(word(element))?;
                if !spa.is_aligned(size.bytes()) {
                    return Err(HvError::INVALID_PARAMETER);
                }
                // The page of the local APICs must stay a hole.
                if page.get() <= APIC_PAGE && APIC_PAGE - page.get() < unit {
                    return Err(HvError::INVALID_PARAMETER);
                }
                owners::table()
                    .pin_range(spa, unit)
                    .map_err(owners::status)?;
                let target = Mapping {
                    spa,
                    size,
                    attributes,
                };
                let mapped = child.map(memory, pool, page, target, pending);
                if mapped != Ok(true) {
                    // The uses were just counted.
                    let _ = owners::table().unpin_range(spa, unit);
                }
                if !mapped? {
                    break;
                }
                count += 1;
            }
            Ok(())
        });
        body.complete(count as u16);
        done?;
        Ok(if body.remaining() == 0 {
            Progress::Done
        } else {
            Progress::Yield
        })
    }

    /// HvCallUnmapGpaPages, in pieces of bounded work.
    pub(super) fn unmap_gpa(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = UnmapGpaPages::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        let is_large = call.flags.contains(UnmapFlags::LARGE);
        let unit = if is_large { LARGE_PAGES } else { 1 };
        if is_large && !call.base.get().is_multiple_of(LARGE_PAGES) {
            return Err(HvError::INVALID_PARAMETER);
        }
        let base = u64::from(body.done())
            .checked_mul(unit)
            .and_then(|pages| call.base.get().checked_add(pages))
            .ok_or(HvError::INVALID_PARAMETER)?;
        self.sweep(body, &child, Gpn::new(base), unit, true)
    }

    /// Declares the pages of the elements that are left without access, or takes them away.
    fn sweep(
        &mut self,
        body: &mut Body<'_>,
        child: &crate::partition::child::ChildPartition,
        page: Gpn,
        unit: u64,
        is_unmap: bool,
    ) -> Result<Progress, HvError> {
        let most = if unit == 1 {
            LARGE_PAGES
        } else {
            LARGE_BURST as u64
        };
        let pages = u64::from(body.remaining()).min(most) * unit;
        let swept = child.edit_memory(self.lp, |memory, pool, pending| {
            child.sweep(memory, pool, page, pages, is_unmap, pending)
        });
        let (done, _) = swept?;
        body.complete((done / unit) as u16);
        Ok(if body.remaining() == 0 {
            Progress::Done
        } else {
            Progress::Yield
        })
    }

    /// HvCallGetGpaPagesAccessStates: reads, sets and clears the marks of a range. The range is flushed where marks change.
    pub(super) fn access_states(&mut self, body: &mut Body<'_>) -> Result<Progress, HvError> {
        let call = GetAccessStates::decode(body.header())?;
        let child = self.child(call.partition)?;
        child.check_active()?;
        let has = |flag| call.flags.contains(flag);
        let change = MarkChange {
            clear: Marks {
                accessed: has(AccessStateFlags::CLEAR_ACCESSED),
                dirty: has(AccessStateFlags::CLEAR_DIRTY),
            },
            set: Marks {
                accessed: has(AccessStateFlags::SET_ACCESSED),
                dirty: has(AccessStateFlags::SET_DIRTY),
            },
        };
        let page = call
            .base
            .get()
            .checked_add(u64::from(body.done()))
            .ok_or(HvError::INVALID_PARAMETER)?;
        let pages = u64::from(body.remaining()).min(LARGE_PAGES);
        let lp = self.lp;
        child.edit_memory(lp, |memory, pool, pending| {
            let mut tell = |marks: Marks, count: u64| {
                let mut state = AccessState::empty();
                state.set(AccessState::ACCESSED, marks.accessed);
                state.set(AccessState::DIRTY, marks.dirty);
                for _ in 0..count {
                    if let Some(mut element) = body.element() {
                        element.answer(&[state.bits()]);
                    }
                    body.complete_element();
                }
            };
            memory
                .space
                .marks(pool, Gpn::new(page), pages, change, pending, &mut tell)
                .map_err(crate::partition::child::memory::status)
        })?;
        Ok(if body.remaining() == 0 {
            Progress::Done
        } else {
            Progress::Yield
        })
    }

    /// HvCallTranslateVirtualAddress, by the page tables of a VP, which is stopped meanwhile.
    pub(super) fn translate_gva(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = Translate::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        let flags = call.flags.0;
        let mut core = vp.core(self.lp);
        let mut state = core.attached(self.lp, |core| core.paging_state());
        drop(core);
        let is_exempt =
            flags.intersects(TranslateFlags::PRIVILEGE_EXEMPT | TranslateFlags::SUPERVISOR);
        if is_exempt {
            state.cpl = 0;
        } else if flags.contains(TranslateFlags::USER) {
            state.cpl = 3;
        }
        let access = if flags.contains(TranslateFlags::EXECUTE) {
            Access::Execute
        } else if flags.contains(TranslateFlags::WRITE) {
            Access::Write
        } else {
            Access::Read
        };
        let gva = Gva::new(call.page.get().wrapping_mul(PAGE_SIZE));
        let mut answer = Translation::default();
        match walk::translate(&state, &TableMemory(&*child), gva, access) {
            Ok(found) => {
                answer.page = found.gpa.page();
                answer.code = match child.check_gpa(found.gpa, access) {
                    Ok(()) => TranslateCode::Success,
                    Err(gpa_space::Fault::Unmapped) => TranslateCode::Unmapped,
                    Err(_) if access == Access::Write => TranslateCode::NoWrite,
                    Err(_) => TranslateCode::NoRead,
                };
                answer.cache_type = tlfs::intercept::cache_type::WRITE_BACK as u8;
            }
            Err(walk::Fault::Page { error_code }) => {
                const PRESENT: u32 = 1;
                const RESERVED: u32 = 1 << 3;
                answer.code = match error_code {
                    code if code & RESERVED != 0 => TranslateCode::InvalidFlags,
                    code if code & PRESENT != 0 => TranslateCode::PrivilegeViolation,
                    _ => TranslateCode::NotPresent,
                };
            }
            Err(walk::Fault::NonCanonical) => answer.code = TranslateCode::NotPresent,
            Err(walk::Fault::NoTable(gpa)) => {
                answer.page = gpa.page();
                answer.code = match child.check_gpa(gpa, Access::Read) {
                    Err(gpa_space::Fault::Unmapped) => TranslateCode::Unmapped,
                    _ => TranslateCode::NoRead,
                };
            }
        }
        body.write_output(&answer.encode())
    }

    /// HvCallReadGpa: up to 16 bytes of a child, as its VP would read them.
    pub(super) fn read_gpa(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = ReadGpa::decode(body.header())?;
        let (child, _) = self.child_vp(call.partition, call.vp)?;
        let mut answer = ReadGpaOutput::default();
        let len = call.bytes.get();
        let buffer = answer.data.get_mut(..len);
        let (Some(buffer), true) = (buffer, fits(call.gpa.page_offset(), len)) else {
            return Err(HvError::INVALID_PARAMETER);
        };
        answer.result.code = code(child.read_gpa(call.gpa, buffer), false);
        body.write_output(&answer.encode())
    }

    /// HvCallWriteGpa: the same the other way.
    pub(super) fn write_gpa(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = WriteGpa::decode(body.header())?;
        let to = call.to;
        let (child, _) = self.child_vp(to.partition, to.vp)?;
        let len = to.bytes.get();
        let bytes = call.data.get(..len);
        let (Some(bytes), true) = (bytes, fits(to.gpa.page_offset(), len)) else {
            return Err(HvError::INVALID_PARAMETER);
        };
        let answer = AccessGpaOutput {
            code: code(child.write_gpa(to.gpa, bytes), true),
            ..AccessGpaOutput::default()
        };
        body.write_output(&answer.encode())
    }
}

const fn fits(offset: usize, len: usize) -> bool {
    len <= PAGE_SIZE as usize - offset
}

fn code(result: Result<(), gpa_space::Fault>, is_write: bool) -> AccessGpaCode {
    match result {
        Ok(()) => AccessGpaCode::Success,
        Err(gpa_space::Fault::Unmapped) => AccessGpaCode::Unmapped,
        Err(_) if is_write => AccessGpaCode::WriteIntercept,
        Err(_) => AccessGpaCode::ReadIntercept,
    }
}
