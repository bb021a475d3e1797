//! Requests that have no completion yet.

use slot_proto::{Generation, Type};

/// Most requests of a channel at a time.
pub const MAX_OUTSTANDING: u32 = 8;

/// A request that was taken and has no completion yet. To be given to [`Channel::complete`](crate::Channel::complete)
/// once, even when its session is over by then.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where in the table.
    pub(crate) index: usize,
    /// The caller's name for it.
    pub(crate) transaction: u64,
    /// Of which session.
    pub(crate) generation: Generation,
    pub(crate) kind: Type,
}

/// All of one channel, those of former sessions included.
#[derive(Debug)]
pub(crate) struct Outstanding([Option<(Ticket, bool)>; MAX_OUTSTANDING as usize]);

impl Outstanding {
    pub(crate) const NONE: Self = Self([None; MAX_OUTSTANDING as usize]);

    fn tickets(&self) -> impl Iterator<Item = &(Ticket, bool)> {
        self.0.iter().flatten()
    }

    /// How many of session `generation` there are.
    pub(crate) fn count(&self, generation: Generation) -> u32 {
        self.tickets()
            .filter(|(ticket, _)| ticket.generation == generation)
            .count() as u32
    }

    /// Whether there are any, of whatever session.
    pub(crate) fn is_empty(&self) -> bool {
        self.tickets().next().is_none()
    }

    /// Whether one that nothing may overtake is among them.
    pub(crate) fn has_barrier(&self) -> bool {
        self.tickets().any(|(_, is_barrier)| *is_barrier)
    }

    pub(crate) fn find(&self, transaction: u64, generation: Generation) -> Option<Ticket> {
        self.tickets()
            .map(|(ticket, _)| *ticket)
            .find(|ticket| ticket.transaction == transaction && ticket.generation == generation)
    }

    pub(crate) fn add(
        &mut self,
        transaction: u64,
        generation: Generation,
        kind: Type,
        is_barrier: bool,
    ) -> Option<Ticket> {
        let (index, place) = self
            .0
            .iter_mut()
            .enumerate()
            .find(|(_, place)| place.is_none())?;
        let ticket = Ticket {
            index,
            transaction,
            generation,
            kind,
        };
        *place = Some((ticket, is_barrier));
        Some(ticket)
    }

    /// False when there is no such request.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        match self.0.get_mut(ticket.index) {
            Some(place) if place.is_some_and(|(known, _)| known == ticket) => {
                *place = None;
                true
            }
            _ => false,
        }
    }
}
