//! The slot: requests to the hypervisor about this child, signals to it, and the doorbell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slot_proto::{
    Call, CallDone, ChannelKind, Generation, HelloDone, HvError, MAX_PACKET_BYTES, Request,
};
use slots::{Client, Incoming, SendError, SignalPage, Violation};
use tlfs::Control;
use uio::{Channel, ChannelError, Ring, Words};
use vmbus_proto::Relid;
use vsp::SignalChild;

/// Requests at a time. The worker waits for each.
const OUTSTANDING: u32 = 4;
/// How long a request may take before the hypervisor counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looks at the ring before sleep: most answers are there when the signal returns.
const LOOKS: u32 = 200;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The hypervisor refused it.
    #[error("the hypervisor refused: {0:?}")]
    Refused(HvError),
    /// The session is over, or the channel is of no use any more.
    #[error("the slot is lost: {0}")]
    Lost(String),
}

impl From<ChannelError> for SlotError {
    fn from(error: ChannelError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<Violation> for SlotError {
    fn from(error: Violation) -> Self {
        Self::Lost(format!("the hypervisor breaks the protocol: {error:?}"))
    }
}

/// The hypervisor, as what is above sees it.
pub trait Hypervisor {
    /// A hypercall about this child: its output.
    ///
    /// # Errors
    /// [`SlotError`].
    fn call(&mut self, control: Control, input: &[u8]) -> Result<Vec<u8>, SlotError>;
}

/// The worker's end of the slot.
pub struct Slot {
    channel: Arc<Channel>,
    client: Client<Ring>,
    buffer: Box<[u8; MAX_PACKET_BYTES]>,
    /// Signalled since the last interrupt and the last notice: there will be another one.
    is_armed: bool,
}

impl Slot {
    /// The slot of session `generation`, after HELLO.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn new(channel: Arc<Channel>, generation: Generation) -> Result<Self, SlotError> {
        let client = Client::new(generation, channel.upstream(), channel.downstream())
            .map_err(|_| SlotError::Lost("its rings have no proper size".into()))?;
        let mut slot = Self {
            channel,
            client,
            buffer: Box::new([0; MAX_PACKET_BYTES]),
            is_armed: false,
        };
        let body = slot.request(&Client::<Ring>::hello(OUTSTANDING))?;
        let hello = HelloDone::decode(&body)
            .map_err(|_| SlotError::Lost("HELLO has no proper answer".into()))?;
        if hello.kind != ChannelKind::Slot || hello.generation != generation {
            return Err(SlotError::Lost(format!(
                "it is {:?} of session {}, not a slot of session {}",
                hello.kind, hello.generation.0, generation.0
            )));
        }
        Ok(slot)
    }

    /// Sends a request and waits for its answer: the body, status included.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>, SlotError> {
        let deadline = Instant::now() + PATIENCE;
        let transaction = loop {
            match self.client.send(request) {
                Ok(transaction) => break transaction,
                Err(SendError::Full | SendError::TooMany) => self.sleep(deadline)?,
                Err(error) => return Err(SlotError::Lost(format!("sending: {error:?}"))),
            }
        };
        if self.client.flush().is_needed() {
            self.signal()?;
        }
        let mut looks = 0;
        loop {
            match self.client.next(&mut self.buffer)? {
                Some(Incoming::Completion(done)) if done.transaction == transaction => {
                    let body = done.body.to_vec();
                    return done.result.map(|()| body).map_err(SlotError::Refused);
                }
                // Nothing else is waited for.
                Some(Incoming::Completion(_)) => {}
                Some(Incoming::Over(why)) => {
                    return Err(SlotError::Lost(format!("the session is over: {why:?}")));
                }
                None if looks < LOOKS => {
                    looks += 1;
                    std::hint::spin_loop();
                }
                None => {
                    looks = 0;
                    self.sleep(deadline)?;
                }
            }
        }
    }

    /// Sleeps until something came.
    fn sleep(&mut self, deadline: Instant) -> Result<(), SlotError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SlotError::Lost("no answer for a minute".into()));
        }
        // An interrupt that the caller's loop would have taken is no loss: it looks before it sleeps.
        if !self.arm()? && self.channel.wait(Some(left.min(Duration::from_secs(1))))? {
            self.is_armed = false;
        }
        self.client.attend();
        Ok(())
    }

    fn signal(&mut self) -> Result<(), SlotError> {
        self.channel.signal()?;
        self.is_armed = true;
        Ok(())
    }

    /// Asks for an interrupt with what comes next. Whether something is there already.
    ///
    /// # Errors
    /// [`SlotError::Lost`].
    pub fn arm(&mut self) -> Result<bool, SlotError> {
        let is_needed = self.client.flush().is_needed();
        self.client.rest();
        if is_needed || !self.is_armed {
            self.signal()?;
        }
        Ok(self.client.has_more()?)
    }

    /// Takes the interrupt that `poll` showed.
    ///
    /// # Errors
    /// [`SlotError::Lost`]: the channel was taken back.
    pub fn take_interrupt(&mut self) -> Result<(), SlotError> {
        self.is_armed = false;
        Ok(self.channel.take()?)
    }

    /// A notice was taken: the hypervisor may have another one for its place, and looks when it is signalled.
    pub const fn took_notice(&mut self) {
        self.is_armed = false;
    }

    /// Wants no interrupts for now, and takes what came unasked.
    ///
    /// # Errors
    /// [`SlotError::Lost`]: the session is over.
    pub fn drain(&mut self) -> Result<(), SlotError> {
        self.client.attend();
        while let Some(incoming) = self.client.next(&mut self.buffer)? {
            if let Incoming::Over(why) = incoming {
                return Err(SlotError::Lost(format!("the session is over: {why:?}")));
            }
        }
        Ok(())
    }
}

impl Hypervisor for Slot {
    fn call(&mut self, control: Control, input: &[u8]) -> Result<Vec<u8>, SlotError> {
        let mut body = self.request(&Request::Call(Call { control, input }))?;
        if body.len() < CallDone::BYTES {
            return Err(SlotError::Lost("a call has no proper answer".into()));
        }
        Ok(body.split_off(CallDone::BYTES))
    }
}

/// The way to signal the child, from any thread.
pub struct Signals {
    page: SignalPage<Words>,
    channel: Arc<Channel>,
}

impl Signals {
    /// Through `page` and the slot of session `generation`.
    pub fn new(page: Words, channel: Arc<Channel>, generation: Generation) -> Self {
        Self {
            page: SignalPage::new(page, generation),
            channel,
        }
    }
}

impl SignalChild for Signals {
    fn signal(&self, relid: Relid) {
        self.page.signal(relid);
        // Without a slot there is no child to signal; the worker's own thread finds out.
        let _ = self.channel.signal();
    }
}
