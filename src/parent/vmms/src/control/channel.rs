//! The control channel through uio.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use slot_proto::{HelloDone, MAX_PACKET_BYTES, Request};
use slots::{Client, Incoming};
use uio::{Bus, BusError, Channel, ChannelError, Ring};
use vmbus_proto::class;

use super::{Answer, Broken, Control};

/// How long an answer may take. Finalizing a large child goes in pieces and takes seconds on an emulator.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the offer and the driver may take after the system's start.
const OFFER_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no control channel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be found or opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// What was opened is no channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The other side does not answer as it should.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The two sides do not speak the same language.
    #[error(
        "the hypervisor refuses HELLO ({0:?}): vmms and hypervisor must be of the same version"
    )]
    Version(tlfs::HvError),
}

/// The open control channel.
pub struct ControlChannel {
    channel: Channel,
    client: Client<Ring>,
    /// Another one: the hypervisor was started anew.
    boot_id: u64,
}

impl ControlChannel {
    /// Opens the channel for the first time since the system's start.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(bus: &Bus) -> Result<Self, OpenError> {
        bus.claim(class::CONTROL)?;
        let channel = bus.open(class::CONTROL_INSTANCE, OFFER_PATIENCE)?;
        let client = Client::new(
            slot_proto::Generation::NONE,
            channel.upstream(),
            channel.downstream(),
        );
        Self::greet(channel, client.map_err(unusable)?)
    }

    /// Goes on with the channel that a daemon before this one opened.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn resume(device: OwnedFd) -> Result<Self, OpenError> {
        let channel = Channel::new(device)?;
        // Others than the predecessor's, whose answers may still come.
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let first = (since.as_nanos() as u64 & (u64::MAX >> 1)).max(1);
        let none = slot_proto::Generation::NONE;
        let client = Client::resume(none, channel.upstream(), channel.downstream(), first);
        Self::greet(channel, client.map_err(unusable)?)
    }

    fn greet(channel: Channel, client: Client<Ring>) -> Result<Self, OpenError> {
        let mut control = Self {
            channel,
            client,
            boot_id: 0,
        };
        let answer = control.ask(&Client::<Ring>::hello(1))?;
        answer.result.map_err(OpenError::Version)?;
        let done = HelloDone::decode(&answer.body)
            .map_err(|_| Broken("the answer to HELLO makes no sense".to_owned()))?;
        control.boot_id = done.boot_id;
        Ok(control)
    }

    /// Number of the hypervisor's start.
    pub const fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// The open device, for the holder.
    ///
    /// # Errors
    /// When the process has too many.
    pub fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.channel.duplicate()
    }
}

fn unusable(_: ring::Unusable) -> Broken {
    Broken("its rings have no proper indices".to_owned())
}

impl Control for ControlChannel {
    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Broken> {
        let broken = |error: &dyn std::fmt::Debug| Broken(format!("{error:?}"));
        let transaction = self.client.send(request).map_err(|e| broken(&e))?;
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; MAX_PACKET_BYTES];
        // The signal arms the doorbell as well, so it is sent in any case.
        let _ = self.client.flush();
        loop {
            self.channel
                .signal()
                .map_err(|error| Broken(error.to_string()))?;
            while let Some(incoming) = self.client.next(&mut buffer).map_err(|e| broken(&e))? {
                match incoming {
                    Incoming::Completion(done) if done.transaction == transaction => {
                        let answer = Answer {
                            result: done.result,
                            body: done.body.to_vec(),
                        };
                        // Room for what comes next is shown with the next request.
                        return Ok(answer);
                    }
                    Incoming::Completion(_) => {}
                    Incoming::Over(_) => {
                        return Err(Broken("the hypervisor took it back".to_owned()));
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Broken("no answer came for two minutes".to_owned()));
            }
            self.channel
                .wait(Some(left))
                .map_err(|error| Broken(error.to_string()))?;
        }
    }
}
