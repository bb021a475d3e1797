//! State of a VP as a whole, and the pages about it.

use addr::{PAGE_SIZE, Spa};
use hypercall::Body;
use synic::Overlay;
use tlfs::HvError;
use tlfs::call::{MapStatePage, StatePageType, StateType, UnmapStatePage, VpState};
use tlfs::state::TimersState;

use super::super::ParentVp;
use super::{frame, word};
use crate::arch::x86::insn;
use crate::mm::owners;
use crate::partition::Partition;
use crate::partition::state_page::PinnedPage;
use crate::vp::child::layout;

impl ParentVp {
    /// HvCallMapVpStatePage: a frame of the parent's becomes the page, cleared. Refused, it is as it was.
    pub(super) fn map_state_page(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = MapStatePage::decode(body.header())?;
        let (_child, vp) = self.child_vp(call.partition, call.vp)?;
        // The parent's capabilities say that it places them.
        if !call.is_placed {
            return Err(HvError::INVALID_PARAMETER);
        }
        let page = PinnedPage::new(frame(call.page.get())?).map_err(owners::status)?;
        let mut pages = vp.pages.lock();
        let slot = match call.kind {
            StatePageType::Registers => &mut pages.registers,
            StatePageType::Intercept => &mut pages.intercept,
        };
        if slot.is_some() {
            return Err(HvError::OBJECT_IN_USE);
        }
        page.write(0, &[0; PAGE_SIZE as usize]);
        *slot = Some(page);
        drop(pages);
        body.write_output(&call.page.get().to_le_bytes())
    }

    /// HvCallUnmapVpStatePage: the frame is the parent's alone again.
    pub(super) fn unmap_state_page(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = UnmapStatePage::decode(body.header())?;
        let (_child, vp) = self.child_vp(call.partition, call.vp)?;
        let mut pages = vp.pages.lock();
        let slot = match call.kind {
            StatePageType::Registers => &mut pages.registers,
            StatePageType::Intercept => &mut pages.intercept,
        };
        slot.take().map(drop).ok_or(HvError::NOT_FOUND)
    }

    /// HvCallGetVpState: a part of a VP's state, to the output or to pages of the parent's.
    pub(super) fn get_state(&mut self, body: &mut Body<'_>) -> Result<(), HvError> {
        let call = VpState::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        if call.xsave_flags != 0 {
            return Err(HvError::INVALID_PARAMETER);
        }
        let index = vp.shared.index;
        match call.kind {
            StateType::Timers => {
                let now = child.core().clock.now(insn::rdtsc());
                let timers = vp.shared.synic.lock().timers(now);
                body.write_output(&timers.encode())
            }
            StateType::Lapic => {
                let page = one_page(body)?;
                let mut core = vp.core(self.lp);
                let saved = core.attached(self.lp, |core| core.save_apic());
                drop(core);
                write(page, &saved)
            }
            StateType::Xsave => {
                let page = one_page(body)?;
                let mut image = [0; PAGE_SIZE as usize];
                let mut core = vp.core(self.lp);
                let length = layout()
                    .export(core.vector_state(), call.xsave_states, &mut image)
                    .map_err(|_| HvError::INVALID_PARAMETER)?;
                drop(core);
                write(page, image.get(..length).unwrap_or(&image))
            }
            StateType::MessagePage | StateType::EventFlagsPage => {
                let kind = synic_page(call.kind);
                let from = child
                    .overlay_frame(kind, index)
                    .ok_or(HvError::INVALID_PARAMETER)?;
                let mut image = [0; PAGE_SIZE as usize];
                from.read(0, &mut image);
                write(one_page(body)?, &image)
            }
        }
    }

    /// HvCallSetVpState. State that makes no sense is refused, and the VP is as it was.
    pub(super) fn set_state(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = VpState::decode(body.header())?;
        let (child, vp) = self.child_vp(call.partition, call.vp)?;
        if call.xsave_flags != 0 {
            return Err(HvError::INVALID_PARAMETER);
        }
        let index = vp.shared.index;
        match call.kind {
            StateType::Timers => {
                let timers = TimersState::decode(body.variable_header())?;
                let now = child.core().clock.now(insn::rdtsc());
                vp.shared
                    .synic
                    .lock()
                    .set_timers(&timers, now)
                    .map_err(|_| HvError::INVALID_PARAMETER)?;
                vp.shared
                    .rescan
                    .store(true, core::sync::atomic::Ordering::SeqCst);
                self.call(&vp.shared);
                Ok(())
            }
            StateType::Lapic => {
                let mut saved = [0; apic::SAVED_BYTES];
                read(one_page(body)?, &mut saved)?;
                let mut core = vp.core(self.lp);
                core.attached(self.lp, |core| core.load_apic(&saved));
                drop(core);
                self.call(&vp.shared);
                Ok(())
            }
            StateType::Xsave => {
                let mut image = [0; PAGE_SIZE as usize];
                read(one_page(body)?, &mut image)?;
                let mut core = vp.core(self.lp);
                layout()
                    .import(&image, core.vector_state())
                    .map_err(|_| HvError::INVALID_PARAMETER)
            }
            StateType::MessagePage | StateType::EventFlagsPage => {
                let kind = synic_page(call.kind);
                let to = child
                    .overlay_frame(kind, index)
                    .ok_or(HvError::INVALID_PARAMETER)?;
                let mut image = [0; PAGE_SIZE as usize];
                read(one_page(body)?, &mut image)?;
                to.write(0, &image);
                Ok(())
            }
        }
    }
}

const fn synic_page(kind: StateType) -> Overlay {
    if matches!(kind, StateType::MessagePage) {
        Overlay::Messages
    } else {
        Overlay::EventFlags
    }
}

/// The one page that a call names.
fn one_page(body: &Body<'_>) -> Result<Spa, HvError> {
    match body.variable_header().len() {
        8 => frame(word(body.variable_header())),
        _ => Err(HvError::INVALID_PARAMETER),
    }
}

fn read(page: Spa, buffer: &mut [u8]) -> Result<(), HvError> {
    // Pinned for the time of the copy: another processor may deposit it.
    let page = PinnedPage::new(page).map_err(owners::status)?;
    page.read(0, buffer);
    Ok(())
}

fn write(page: Spa, bytes: &[u8]) -> Result<(), HvError> {
    let page = PinnedPage::new(page).map_err(owners::status)?;
    page.write(0, bytes);
    Ok(())
}
