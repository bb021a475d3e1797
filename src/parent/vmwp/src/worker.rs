//! The worker at work: one thread answers the VPs, carries out notices, hands packets to devices and listens to the
//! daemon. Requests to disks run on a pool.

mod crash;
mod daemon;
mod pace;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use platform::mmio::Registers;
use platform::{Devices, Interrupt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use slot_proto::event::Faults;
use slots::Watcher;
use tlfs::register::RegisterName;
use uio::{Channel, Words};
use vm_memory::GuestMemoryMmap;
use vsp::Bus;
use worker_link::{FromWorker, Link, StopReason, ToWorker, stop_point};
use x86::GpRegs;

use crate::calls::Child;
use crate::console::Console;
use crate::disks::Disks;
use crate::intercept::{Answer, Intercept, answer, page_registers};
use crate::slot::{Hypervisor, Slot, SlotError};
use crate::wake::Bell;

pub use daemon::tell;

use pace::{Next, Pace};

/// How long requests on their way to a disk may hold up an end.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// The longest sleep.
const PATIENCE: Duration = Duration::from_secs(60);
/// Notices that are carried out in one go.
const NOTICES: usize = 64;

/// The link to the daemon.
pub type ToDaemon = Link<FromWorker, ToWorker>;

/// Interrupts that devices raised and that are not sent yet.
pub type Raised = Arc<Mutex<Vec<Interrupt>>>;

/// Where the state pages of a VP are.
#[derive(Clone, Debug)]
pub struct VpPages {
    /// Its last intercept message.
    pub intercept: Words,
    /// Its registers.
    pub registers: Words,
}

/// What a worker consists of when its child is loaded.
pub struct Parts {
    /// The daemon.
    pub link: ToDaemon,
    /// The child.
    pub child: Child,
    /// Its RAM.
    pub memory: Arc<GuestMemoryMmap>,
    /// The slot.
    pub slot: Slot,
    /// The slot's interrupt.
    pub channel: Arc<Channel>,
    /// The event area.
    pub watcher: Watcher<Words>,
    /// State pages, by VP.
    pub vps: Vec<VpPages>,
    /// Devices of VMBus.
    pub bus: Bus,
    /// Other devices.
    pub devices: Devices,
    /// What they raise.
    pub raised: Raised,
    /// The console.
    pub console: Console,
    /// Disk images.
    pub disks: Disks,
    /// Wakes this thread.
    pub bell: Arc<Bell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never ran.
    Ready,
    Running,
    /// VPs are suspended; requests are on their way.
    Pausing,
    Paused,
}

/// A worker with its child.
pub struct Worker {
    parts: Parts,
    state: State,
    /// What the daemon was told last about the child's state.
    said: FromWorker,
    is_linked: bool,
    /// Faults of instructions that were written to the log.
    faults: u32,
    /// Crashes that its kernel reported.
    crashes: u32,
    /// Something is there at the console, or it takes more.
    console_is_ready: bool,
    /// The daemon said something.
    link_is_ready: bool,
}

/// Log lines about instructions that cannot be carried out, at most.
const FAULTS_LOGGED: u32 = 20;

impl Worker {
    /// Tells the daemon that the child is ready.
    pub fn new(parts: Parts) -> Self {
        let mut worker = Self {
            parts,
            state: State::Ready,
            said: FromWorker::Ready,
            is_linked: true,
            faults: 0,
            crashes: 0,
            console_is_ready: true,
            link_is_ready: true,
        };
        worker.say(FromWorker::Ready);
        worker
    }

    /// Serves the child to its end, and tells the daemon of it.
    pub fn run(mut self) {
        let reason = match self.serve() {
            Ok(reason) => reason,
            Err(error) => StopReason::Failed {
                text: format!("{error:#}"),
            },
        };
        if let Err(error) = self.end() {
            self.tell(&FromWorker::Error {
                text: format!("{error:#}"),
            });
        } else {
            // Images are marked as closed before the daemon hears of the end, and ends this process.
            self.parts.bus.clear();
            self.parts.disks.close();
        }
        self.say(FromWorker::Stopped { reason });
    }

    fn serve(&mut self) -> Result<StopReason> {
        let mut pace = Pace::default();
        loop {
            self.parts.slot.drain()?;
            if let Some(reason) = self.look_at_vps()? {
                return Ok(reason);
            }
            let is_busy = self.run_bus()?;
            self.finish_pause();
            let mut held = self.parts.console.held();
            if std::mem::take(&mut self.console_is_ready) || held == Some(Duration::ZERO) {
                self.parts.console.run(&mut self.parts.devices);
                held = None;
            }
            self.send_interrupts()?;
            let was_told = std::mem::take(&mut self.link_is_ready);
            if was_told && let Some(reason) = self.hear()? {
                return Ok(reason);
            }
            // What the daemon wants done is done in the next turn: the interrupt of the power button, packets that came
            // before a pause. Nothing of the child would wake us for it.
            let mut next = pace.next(is_busy || was_told);
            if next == Next::Sleep {
                // The last look: a child that always has something must not keep us from the daemon.
                if self.parts.slot.arm()? || self.parts.watcher.has_news() {
                    next = pace.stay_awake();
                }
            }
            match next {
                Next::Turn => {}
                Next::Look => self.wait(Duration::ZERO)?,
                Next::Sleep => self.wait(held.unwrap_or(PATIENCE))?,
            }
        }
    }

    /// Carries out notices and serves channels. Whether the child uses them right now.
    fn run_bus(&mut self) -> Result<bool> {
        let parts = &mut self.parts;
        let mut is_signalled = false;
        parts.watcher.take_signals(|relid| {
            is_signalled = true;
            parts.bus.signalled(relid);
        });
        let mut is_busy = is_signalled;
        // A child can have more of them made while these are answered.
        for _ in 0..NOTICES {
            let notice = parts.watcher.next_notice();
            let notice = notice.map_err(|error| anyhow!("the event area is broken: {error:?}"))?;
            let Some(notice) = notice else {
                break;
            };
            is_busy = true;
            parts.slot.took_notice();
            stop_point("vmwp:notice");
            parts.bus.notice(&notice, &mut parts.slot)?;
        }
        is_busy |= parts.bus.run(&mut parts.slot)?;
        if is_signalled {
            stop_point("vmwp:signalled");
        }
        Ok(is_busy)
    }

    /// Answers intercepts and faults. A reason when the child is over.
    fn look_at_vps(&mut self) -> Result<Option<StopReason>> {
        let news = self.parts.watcher.take_news();
        let mut vps = news.vps;
        while vps != 0 {
            let vp = vps.trailing_zeros();
            vps &= vps - 1;
            if let Some(reason) = self.answer(vp)? {
                return Ok(Some(reason));
            }
        }
        self.look_at_faults(news.faults)
    }

    fn look_at_faults(&mut self, faults: Faults) -> Result<Option<StopReason>> {
        if faults.intersects(Faults::RING_STOPPED | Faults::MUST_LEAVE) {
            anyhow::bail!("the hypervisor stopped the slot: {faults:?}");
        }
        if faults.contains(Faults::CRASHED) {
            self.crashed()?;
        }
        if faults.contains(Faults::RESET_ASKED) {
            return Ok(Some(StopReason::Reset));
        }
        if faults.contains(Faults::DEPOSIT_LOW) {
            self.tell(&FromWorker::DepositLow);
        }
        Ok(None)
    }

    /// Answers the intercept of VP `vp`.
    fn answer(&mut self, vp: u32) -> Result<Option<StopReason>> {
        let parts = &mut self.parts;
        let Some(pages) = parts.vps.get(vp as usize) else {
            return Ok(None);
        };
        let intercept = Intercept::read(&pages.intercept);
        stop_point("vmwp:intercept");
        let read = || match page_registers(&pages.registers) {
            Some(registers) => Ok(registers),
            None => read_registers(parts.child, &mut parts.slot, vp),
        };
        let mut changed = match answer(vp, &intercept, &mut parts.devices, read)? {
            Answer::Go(changed) => changed,
            Answer::Stop(reason) => return Ok(Some(reason)),
            Answer::Fault(text) => {
                if self.faults < FAULTS_LOGGED {
                    self.faults += 1;
                    crate::log(&text);
                }
                Answer::fault()
            }
        };
        // What it wrote to the console or asked of an interrupt comes before it goes on.
        self.send_interrupts()?;
        changed.push((RegisterName::INTERCEPT_SUSPEND, 0));
        let parts = &mut self.parts;
        parts
            .child
            .set_registers(&mut parts.slot, vp, &changed)
            .with_context(|| format!("letting VP {vp} go on"))?;
        Ok(None)
    }

    fn send_interrupts(&mut self) -> Result<()> {
        let parts = &mut self.parts;
        let raised =
            std::mem::take(&mut *parts.raised.lock().unwrap_or_else(PoisonError::into_inner));
        for interrupt in raised {
            match parts.child.assert(&mut parts.slot, &interrupt) {
                // Nobody has this destination or this vector: lost, as on the bus.
                Ok(()) | Err(SlotError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Suspends the VPs, waits for requests on their way and flushes the disks.
    fn end(&mut self) -> Result<()> {
        let suspended = self.suspend(true).context("suspending the VPs");
        let parts = &mut self.parts;
        parts.bus.pause();
        stop_point("vmwp:ending");
        let deadline = Instant::now() + END_PATIENCE;
        // Nothing of this needs the hypervisor, which may be what failed.
        while !parts.bus.settle() {
            if Instant::now() >= deadline {
                anyhow::bail!("requests to a disk do not end");
            }
            let mut fds = [PollFd::new(&parts.bell, PollFlags::IN)];
            wait(&mut fds, Duration::from_secs(1))?;
            parts.bell.clear();
        }
        parts.console.run(&mut parts.devices);
        parts.disks.flush()?;
        suspended
    }

    /// Waits until something is to be done, and notes where.
    fn wait(&mut self, time: Duration) -> Result<()> {
        let parts = &mut self.parts;
        let mut fds = vec![
            PollFd::new(&*parts.channel, PollFlags::IN),
            PollFd::new(&parts.bell, PollFlags::IN),
        ];
        if self.is_linked {
            fds.push(PollFd::new(&parts.link, PollFlags::IN));
        }
        if let Some((socket, flags)) = parts.console.interest(&parts.devices) {
            fds.push(PollFd::from_borrowed_fd(socket, flags));
        }
        wait(&mut fds, time)?;
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (slot, bell) = (is_ready(0), is_ready(1));
        self.link_is_ready |= self.is_linked && is_ready(2);
        self.console_is_ready |= is_ready(2 + usize::from(self.is_linked));
        if slot {
            // Also where the channel was taken back: that is an error here.
            parts.slot.take_interrupt()?;
        }
        if bell {
            parts.bell.clear();
        }
        Ok(())
    }
}

fn wait(fds: &mut [PollFd<'_>], time: Duration) -> Result<()> {
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    };
    match poll(fds, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}

fn read_registers(
    child: Child,
    hypervisor: &mut dyn Hypervisor,
    vp: u32,
) -> Result<Registers, SlotError> {
    const GENERAL: usize = 16;
    let names: [RegisterName; GENERAL + 2] = std::array::from_fn(|number| match number {
        GENERAL => RegisterName::RIP,
        number if number > GENERAL => RegisterName::RFLAGS,
        number => RegisterName::RAX.nth(number as u32),
    });
    let values = child
        .registers(hypervisor, vp, names)?
        .map(|value| value as u64);
    let [gp @ .., rip, rflags] = values;
    Ok(Registers {
        gp: GpRegs(gp),
        rip,
        rflags,
    })
}
