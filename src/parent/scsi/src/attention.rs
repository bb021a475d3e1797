//! Unit attention: what a logical unit must tell before it does the next command.

use std::sync::{Mutex, PoisonError};

use crate::sense::Sense;

/// Conditions that wait to be told, each once, the oldest first. There is one initiator.
#[derive(Default)]
pub struct Attention(Mutex<Vec<Sense>>);

impl Attention {
    /// Adds a condition, unless it waits already.
    pub fn raise(&self, condition: Sense) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&condition) {
            waiting.push(condition);
        }
    }

    /// Takes the oldest condition.
    pub fn take(&self) -> Option<Sense> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!waiting.is_empty()).then(|| waiting.remove(0))
    }
}
