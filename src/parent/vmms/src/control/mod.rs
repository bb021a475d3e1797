//! The control channel: what the daemon asks of the hypervisor.

mod calls;
mod channel;
#[cfg(test)]
pub mod fake;
mod list;

use std::sync::{Arc, Mutex};

use slot_proto::Request;
use tlfs::HvError;

pub use calls::Calls;
pub use channel::ControlChannel;

/// Something that answers requests of the control channel.
pub trait Control: Send {
    /// Asks, and waits for the completion.
    ///
    /// # Errors
    /// [`Broken`]: no answer will come, to this and any other request.
    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Broken>;
}

/// The control channel, for all threads.
pub type SharedControl = Arc<Mutex<dyn Control>>;

/// A completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub result: Result<(), HvError>,
    /// The body, status included.
    pub body: Vec<u8>,
}

/// The control channel is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control channel to the hypervisor is broken: {0}")]
pub struct Broken(pub String);

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The hypervisor refused it.
    #[error("{what}: the hypervisor answers {error:?}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        error: HvError,
    },
    /// An answer that cannot be.
    #[error("{0}: the hypervisor's answer makes no sense")]
    Senseless(&'static str),
    /// No answer.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl ControlError {
    /// The status that the hypervisor answered.
    pub fn status(&self) -> Option<HvError> {
        match self {
            Self::Refused { error, .. } => Some(*error),
            _ => None,
        }
    }
}
