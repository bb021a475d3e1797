//! One child: a thread that owns all there is of it.

mod again;
mod build;
mod console;
mod crash;
mod files;
mod info;
mod resizing;
mod thread;
mod wishes;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};
use vmms_proto::{ChildInfo, ChildState};

use crate::description::Description;
use crate::life::Event;
use crate::record::{Record, Waiting};

pub use build::{Machine, end_worker};

/// A child that is described and does not exist.
pub fn described(name: &str, description: &Description) -> ChildInfo {
    let mut info = ChildInfo {
        name: name.to_owned(),
        ..ChildInfo::default()
    };
    info::fill(&mut info, description);
    info
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Its VPs run.
    Running,
    /// They stand still.
    Paused,
    /// It is gone.
    Stopped,
}

/// What a daemon before this one left of a child.
enum Found {
    Nothing,
    /// It exists, or was being made or taken apart.
    Child(Box<Record>),
    /// It waited for its restart.
    Waiting(Box<Waiting>),
}

/// The end of a wish.
pub type Outcome = Result<(), String>;

/// What the thread is told.
enum Command {
    /// To start a child so described.
    Start(Box<Description>, SyncSender<Outcome>),
    /// To make something happen.
    Wish(Event, Goal, SyncSender<Outcome>),
    /// To look at the size of a disk again.
    Resize(u8, SyncSender<Outcome>),
    /// To attach a viewer to the console.
    View(UnixStream),
    /// Nobody knows it any more. It is stopped.
    End,
}

/// A child, from outside.
pub struct Child {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    info: Arc<Mutex<ChildInfo>>,
}

impl Child {
    /// A child that does not exist yet.
    ///
    /// # Errors
    /// When there is no thread or file for it.
    pub fn new(machine: &Arc<Machine>, name: &str) -> Result<Self, String> {
        Self::begin(machine, name, Found::Nothing)
    }

    /// The child that a daemon before this one made. What is not whole is taken apart.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn adopt(machine: &Arc<Machine>, record: Record) -> Result<Self, String> {
        let name = record.description.name.clone();
        machine.slots.claim(record.slot, &name);
        Self::begin(machine, &name, Found::Child(Box::new(record)))
    }

    /// A child that waited for its restart when a daemon before this one ended.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn wait_again(machine: &Arc<Machine>, waiting: Waiting) -> Result<Self, String> {
        let name = waiting.description.name.clone();
        Self::begin(machine, &name, Found::Waiting(Box::new(waiting)))
    }

    fn begin(machine: &Arc<Machine>, name: &str, found: Found) -> Result<Self, String> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|error| error.to_string())?);
        let info = Arc::new(Mutex::new(ChildInfo {
            name: name.to_owned(),
            ..ChildInfo::default()
        }));
        let (commands, received): (_, Receiver<Command>) = channel();
        let thread = thread::Thread::new(
            Arc::clone(machine),
            name,
            received,
            Arc::clone(&wake),
            Arc::clone(&info),
        );
        std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || thread.run(found))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            commands,
            wake,
            info,
        })
    }

    /// What it is doing, and what it is made of.
    pub fn info(&self) -> ChildInfo {
        let info = self.info.lock().unwrap_or_else(|error| error.into_inner());
        info.clone()
    }

    /// Whether there is nothing of it.
    pub fn is_stopped(&self) -> bool {
        self.info().state == ChildState::Stopped
    }

    /// Starts it as `description` says and waits until its VPs run.
    ///
    /// # Errors
    /// Why they do not.
    pub fn start(&self, description: Description) -> Outcome {
        self.wait(|reply| Command::Start(Box::new(description), reply))
    }

    /// Makes `event` happen and waits for `goal`.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub fn wish(&self, event: Event, goal: Goal) -> Outcome {
        self.wait(|reply| Command::Wish(event, goal, reply))
    }

    /// Tells it that disk `lun` has another size.
    ///
    /// # Errors
    /// What the worker says.
    pub fn resize(&self, lun: u8) -> Outcome {
        self.wait(|reply| Command::Resize(lun, reply))
    }

    /// Attaches a viewer to its console.
    pub fn view(&self, stream: UnixStream) {
        self.tell(Command::View(stream));
    }

    fn tell(&self, command: Command) {
        // The thread lives as long as the process.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    fn wait(&self, command: impl FnOnce(SyncSender<Outcome>) -> Command) -> Outcome {
        let (reply, outcome) = sync_channel(1);
        self.tell(command(reply));
        let outcome = outcome.recv();
        outcome.unwrap_or_else(|_| Err("its thread ended; `vmctl logs` may tell why".to_owned()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.tell(Command::End);
    }
}
