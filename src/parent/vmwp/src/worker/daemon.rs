//! What the daemon asks, and what it is told.

use std::time::Duration;

use anyhow::Result;
use tlfs::PropertyCode;
use tlfs::register::RegisterName;
use worker_link::{FromWorker, LinkError, StopReason, ToWorker};

use super::{State, ToDaemon, Worker};
use crate::slot::SlotError;

impl Worker {
    /// Suspends all VPs, or lets them run.
    pub(super) fn suspend(&mut self, is_suspended: bool) -> Result<(), SlotError> {
        let value = [(RegisterName::EXPLICIT_SUSPEND, u128::from(is_suspended))];
        let parts = &mut self.parts;
        for vp in 0..parts.vps.len() {
            parts
                .child
                .set_registers(&mut parts.slot, vp as u32, &value)?;
        }
        Ok(())
    }

    fn freeze_time(&mut self, is_frozen: bool) -> Result<(), SlotError> {
        let parts = &mut self.parts;
        let (slot, code) = (&mut parts.slot, PropertyCode::TIME_FREEZE);
        parts.child.set_property(slot, code, is_frozen.into())
    }

    /// Carries out what the daemon says.
    pub(super) fn hear(&mut self) -> Result<Option<StopReason>> {
        while self.is_linked {
            match self.parts.link.receive() {
                Ok((ToWorker::Stop, _)) => return Ok(Some(StopReason::Stopped)),
                Ok((message, _)) => self.obey(message)?,
                Err(LinkError::WouldBlock) => return Ok(None),
                // The daemon is gone, and with it whoever kept the link for the next one. The child goes on.
                Err(LinkError::Closed) => self.is_linked = false,
                Err(error @ LinkError::Malformed(_)) => crate::log(&error.to_string()),
                Err(error) => {
                    crate::log(&error.to_string());
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn obey(&mut self, message: ToWorker) -> Result<()> {
        match (message, self.state) {
            (ToWorker::Run, State::Ready) => {
                self.suspend(false)?;
                self.state = State::Running;
                self.say(FromWorker::Running);
            }
            (ToWorker::Pause, State::Running) => {
                self.suspend(true)?;
                self.freeze_time(true)?;
                self.parts.bus.pause();
                self.state = State::Pausing;
            }
            (ToWorker::Resume, State::Paused | State::Pausing) => {
                self.freeze_time(false)?;
                self.parts.bus.resume();
                self.suspend(false)?;
                self.state = State::Running;
                self.say(FromWorker::Running);
            }
            (ToWorker::PowerButton, _) => self.parts.devices.press_power_button(),
            (ToWorker::ResizeDisk { lun }, _) => {
                let answer = match self.parts.disks.refresh(lun) {
                    Ok(bytes) => FromWorker::Resized { lun, bytes },
                    Err(error) => FromWorker::Error {
                        text: format!("{error:#}"),
                    },
                };
                self.tell(&answer);
            }
            (ToWorker::Report, _) => {
                let said = self.said.clone();
                self.tell(&said);
            }
            (message, state) => self.tell(&FromWorker::Error {
                text: format!("{message:?} does not go with a child that is {state:?}"),
            }),
        }
        Ok(())
    }

    pub(super) fn finish_pause(&mut self) {
        if self.state == State::Pausing && self.parts.bus.is_settled() {
            self.state = State::Paused;
            self.say(FromWorker::Paused);
        }
    }

    /// Tells the daemon of the child's state.
    pub(super) fn say(&mut self, message: FromWorker) {
        self.tell(&message);
        self.said = message;
    }

    pub(super) fn tell(&mut self, message: &FromWorker) {
        if let FromWorker::Error { text } = message {
            crate::log(text);
        }
        if self.is_linked {
            // A daemon that hears nothing for so long asks with `Report` when it listens again.
            let _ = tell(&self.parts.link, message);
        }
    }
}

/// Sends, and waits a moment where there is no room.
///
/// # Errors
/// [`LinkError`].
pub fn tell(link: &ToDaemon, message: &FromWorker) -> Result<(), LinkError> {
    for _ in 0..50 {
        match link.send(message, &[]) {
            Err(LinkError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    Err(LinkError::WouldBlock)
}
