//! The slots: each is opened once, and used by one worker after another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use slot_proto::SLOTS;
use uio::{Bus, BusError};
use vmbus_proto::class;

use crate::control::{Calls, ControlError};
use crate::holder::{Holder, HolderError};

/// How long the offer of a new slot and the driver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// It cannot be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// It cannot be kept.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The hypervisor offers no more.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// All are in use.
    #[error("all {SLOTS} slots are in use: stop another child")]
    None,
    /// The process has too many files.
    #[error("duplicating a slot's file: {0}")]
    Io(#[from] io::Error),
}

#[derive(Default)]
struct State {
    /// Open files by number.
    open: BTreeMap<u32, OwnedFd>,
    /// Which child has it.
    owner: BTreeMap<u32, String>,
}

/// All slots.
pub struct Slots {
    bus: Bus,
    holder: Holder,
    calls: Calls,
    state: Mutex<State>,
}

impl Slots {
    /// The slots of `bus`; those that a daemon before this one opened are taken from the holder.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn new(bus: Bus, holder: Holder, calls: Calls) -> Result<Self, SlotError> {
        bus.claim(class::SLOT)?;
        let mut state = State::default();
        for name in holder.names()? {
            let number = name
                .strip_prefix("slot/")
                .and_then(|number| number.parse().ok());
            if let (Some(number), Some(file)) = (number, holder.get(&name)?.into_iter().next()) {
                state.open.insert(number, file);
            }
        }
        Ok(Self {
            bus,
            holder,
            calls,
            state: Mutex::new(state),
        })
    }

    /// Takes slot `number`, which a child from before has.
    pub fn claim(&self, number: u32, child: &str) {
        let mut state = self.state.lock().unwrap_or_else(|error| error.into_inner());
        state.owner.insert(number, child.to_owned());
    }

    /// A slot for `child`: its number, and a duplicate of its open file.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn take(&self, child: &str) -> Result<(u32, OwnedFd), SlotError> {
        let mut state = self.state.lock().unwrap_or_else(|error| error.into_inner());
        let state = &mut *state;
        let number = (0..SLOTS)
            .find(|number| !state.owner.contains_key(number))
            .ok_or(SlotError::None)?;
        let file = match state.open.entry(number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.open(number)?),
        };
        let file = file.as_fd().try_clone_to_owned()?;
        state.owner.insert(number, child.to_owned());
        Ok((number, file))
    }

    /// Gives a slot back. Its session is over.
    pub fn release(&self, number: u32) {
        let mut state = self.state.lock().unwrap_or_else(|error| error.into_inner());
        state.owner.remove(&number);
    }

    /// Opens a slot for the first time, and leaves it with the holder.
    fn open(&self, number: u32) -> Result<OwnedFd, SlotError> {
        let instance = class::slot_instance(number);
        if !self.bus.is_offered(instance) {
            self.calls.add_slot(number)?;
        }
        let channel = self.bus.open(instance, PATIENCE)?;
        // Linux has the interrupts of all such channels go to processor 0.
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        if !number.is_multiple_of(cpus)
            && let Err(error) = self.bus.set_cpu(instance, number % cpus)
        {
            eprintln!("vmms: slot {number}: {error}");
        }
        let file = channel.duplicate()?;
        self.holder
            .put(&format!("slot/{number}"), &[file.as_fd()])?;
        Ok(file)
    }
}
