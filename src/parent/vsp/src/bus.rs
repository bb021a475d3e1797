//! Which channels there are, and in what state.

mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use slot_proto::Notice;
use vm_memory::GuestMemoryMmap;
use vmbus_proto::Relid;

use crate::channel::{Channel, State};
use crate::device::{Device, Done};
use crate::events::{DeviceIndex, Event, Events, Wake};
use crate::output::SignalChild;
use crate::server::{BusError, Server, ServerError};

/// Answers on one channel for which the child has no room, before no more of its packets are taken there. What the device
/// has taken by then may still be added.
const WAITING_MAX: usize = 256;
/// How long a ring is looked at after its last packet, before the child is asked to signal the next one.
const POLLED: Duration = Duration::from_micros(20);

/// The channels of one child and the devices behind them. One thread owns it; devices wake that thread through [`Wake`],
/// and it calls [`Bus::run`].
pub struct Bus {
    memory: Arc<GuestMemoryMmap>,
    child: Arc<dyn SignalChild>,
    events: Events,
    inbox: Receiver<Event>,
    devices: Vec<Box<dyn Device>>,
    channels: BTreeMap<Relid, Channel>,
    /// Channels to be offered as soon as the server lets us.
    wanted: Vec<(DeviceIndex, u16)>,
    /// Counts closings, resets and pauses, so that late ends are told from current ones.
    serial: u64,
    /// The reset that is going on.
    reset: Option<u64>,
    /// The pause that was asked for, until [`Bus::resume`].
    pause: Option<u64>,
    is_settled: bool,
}

impl Bus {
    /// A bus without devices. `child` signals the child, `wake` the thread that calls [`Bus::run`].
    pub fn new(
        memory: Arc<GuestMemoryMmap>,
        child: Arc<dyn SignalChild>,
        wake: Arc<dyn Wake>,
    ) -> Self {
        let (events, inbox) = Events::new(wake);
        Self {
            memory,
            child,
            events,
            inbox,
            devices: Vec::new(),
            channels: BTreeMap::new(),
            wanted: Vec::new(),
            serial: 0,
            reset: None,
            pause: None,
            is_settled: false,
        }
    }

    /// Adds the device that `make` makes, and offers it to the child.
    ///
    /// # Errors
    /// [`BusError`]: the child is not offered the device.
    pub fn add(
        &mut self,
        server: &mut dyn Server,
        make: impl FnOnce(Events) -> Box<dyn Device>,
    ) -> Result<(), BusError> {
        let number = self.devices.len();
        let device = make(self.events.of_device(number));
        let relid = server
            .offer(&device.offer())
            .map_err(|error| failed("offering a device", error))?;
        self.devices.push(device);
        self.channels.insert(relid, Channel::new(number, 0));
        Ok(())
    }

    /// Carries out what the child did to its VMBus.
    ///
    /// # Errors
    /// [`BusError`]: the bus cannot go on.
    pub fn notice(&mut self, notice: &Notice, server: &mut dyn Server) -> Result<(), BusError> {
        match *notice {
            Notice::Open(relid, ref opening) => self.open(relid, opening, server),
            Notice::Close(relid) => self.close(relid, server),
            Notice::GpadlTeardown(relid, handle) => self.teardown(relid, handle, server),
            Notice::Released(relid) => self.released(relid, server),
            Notice::Reset(_) => {
                self.reset();
                Ok(())
            }
        }
    }

    /// The child signalled a channel: there are packets, or room for some.
    pub fn signalled(&mut self, relid: Relid) {
        if let Some(channel) = self.channels.get_mut(&relid)
            && let State::Open(rings) = &mut channel.state
        {
            rings.has_work = true;
            rings.output.resume();
        }
    }

    /// Does what devices asked for, and hands them the child's packets. Whether there is more to do at once; otherwise
    /// the child signals, or a device wakes the caller.
    ///
    /// # Errors
    /// [`BusError`]: the bus cannot go on.
    pub fn run(&mut self, server: &mut dyn Server) -> Result<bool, BusError> {
        while let Ok(event) = self.inbox.try_recv() {
            self.on_event(&event, server)?;
        }
        if self.pause.is_some() || self.reset.is_some() {
            return Ok(false);
        }
        let mut has_more = false;
        for (relid, channel) in &mut self.channels {
            let State::Open(rings) = &mut channel.state else {
                continue;
            };
            let Some(device) = self.devices.get_mut(channel.device) else {
                continue;
            };
            if !rings.has_work {
                continue;
            }
            if rings.output.waiting() > WAITING_MAX {
                // The child reads none of its answers, and gets no more of them. It signals when it does, but not where an
                // answer of another thread found the room first: its ring stays one to be looked at.
                continue;
            }
            let pumped = rings.input.pump(device.as_mut(), channel.index);
            let outcome = pumped.and_then(|pumped| {
                if pumped.taken > 0 {
                    rings.last_packet = Instant::now();
                    return Ok((pumped.signal, true));
                }
                if rings.last_packet.elapsed() < POLLED && !rings.input.is_blocked() {
                    return Ok((pumped.signal, true));
                }
                let (signal, is_there) = rings.input.arm()?;
                Ok((pumped.signal.or(signal), is_there))
            });
            match outcome {
                Ok((signal, is_there)) => {
                    rings.has_work = is_there;
                    has_more |= is_there;
                    if signal.is_needed() {
                        self.child.signal(*relid);
                    }
                }
                // The child broke its ring. It gets nothing done on this channel until it opens it anew.
                Err(_) => rings.has_work = false,
            }
        }
        Ok(has_more)
    }

    /// Takes no more packets. [`Bus::is_settled`] holds when those that were taken are completed.
    pub fn pause(&mut self) {
        let serial = self.next_serial();
        (self.pause, self.is_settled) = (Some(serial), false);
        self.ask_all(Event::Settled(serial), |device, done| device.settle(done));
    }

    /// Whether nothing is on its way after [`Bus::pause`].
    pub const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// [`Bus::is_settled`], for a bus that is at its end: other wishes of devices are dropped.
    pub fn settle(&mut self) -> bool {
        while let Ok(event) = self.inbox.try_recv() {
            self.is_settled |=
                matches!(event, Event::Settled(serial) if self.pause == Some(serial));
        }
        self.is_settled
    }

    /// Lets go of all devices and channels, for a bus that is settled and at its end. The child hears nothing of it.
    pub fn clear(&mut self) {
        self.channels.clear();
        self.devices.clear();
    }

    /// Undoes [`Bus::pause`].
    pub fn resume(&mut self) {
        (self.pause, self.is_settled) = (None, false);
        for channel in self.channels.values_mut() {
            if let State::Open(rings) = &mut channel.state {
                rings.has_work = true;
            }
        }
    }

    fn next_serial(&mut self) -> u64 {
        // 2^64 take longer than any machine runs.
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Has `ask` ask every device, and sends `event` when all are done.
    fn ask_all(&mut self, event: Event, ask: impl Fn(&mut dyn Device, Done)) {
        let all = Arc::new(AllDone {
            left: AtomicUsize::new(self.devices.len() + 1),
            events: self.events.clone(),
        });
        for device in &mut self.devices {
            let (all, event) = (Arc::clone(&all), event.clone());
            ask(device.as_mut(), Box::new(move || all.one(event)));
        }
        all.one(event);
    }
}

/// Counts those who are not done yet.
struct AllDone {
    left: AtomicUsize,
    events: Events,
}

impl AllDone {
    fn one(&self, event: Event) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.events.send(event);
        }
    }
}

const fn failed(doing: &'static str, error: ServerError) -> BusError {
    BusError::Server { doing, error }
}

/// The server may have forgotten what an answer is about: the child was reset meanwhile, and says so in a notice.
fn tolerate(answer: Result<(), ServerError>, doing: &'static str) -> Result<(), BusError> {
    match answer {
        Ok(()) | Err(ServerError::Refused(_)) => Ok(()),
        Err(error) => Err(failed(doing, error)),
    }
}
