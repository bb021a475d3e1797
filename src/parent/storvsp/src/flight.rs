//! Requests on their way: which there are, and who waits for their end.
//!
//! Requests are numbered in the order in which they were taken. A barrier waits for all older ones, of one channel or of
//! all; what comes after it does not hold it up.

use std::collections::{BTreeMap, BTreeSet};

use crate::incoming::Channel;

type Done = Box<dyn FnOnce() + Send>;

/// Number of a request.
pub(crate) type Number = u64;

/// Which requests a barrier is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    One(Channel),
    All,
}

impl Scope {
    fn has(self, channel: Channel) -> bool {
        match self {
            Self::One(one) => one == channel,
            Self::All => true,
        }
    }
}

struct Barrier {
    scope: Scope,
    /// Requests below this number count.
    below: Number,
    done: Done,
}

/// All requests on their way, and the channels that are open.
#[derive(Default)]
pub(crate) struct Flights {
    next: Number,
    outstanding: BTreeMap<Number, Channel>,
    open: BTreeSet<Channel>,
    barriers: Vec<Barrier>,
    /// Requests below this number are not to be started any more, by channel.
    cancelled: BTreeMap<Channel, Number>,
}

impl Flights {
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    pub(crate) fn is_open(&self, channel: Channel) -> bool {
        self.open.contains(&channel)
    }

    pub(crate) fn open_channels(&self) -> Vec<Channel> {
        self.open.iter().copied().collect()
    }

    /// Opens a channel; `false` if it is open, or still has requests from before it was closed.
    pub(crate) fn open(&mut self, channel: Channel) -> bool {
        let is_used = self.outstanding.values().any(|one| *one == channel);
        !is_used && self.open.insert(channel)
    }

    /// Takes a request.
    pub(crate) fn start(&mut self, channel: Channel) -> Number {
        let number = self.next;
        // 2^64 requests take longer than any machine runs.
        self.next = self.next.wrapping_add(1);
        self.outstanding.insert(number, channel);
        number
    }

    /// Whether a request that waits in the queue should still be carried out.
    pub(crate) fn is_cancelled(&self, number: Number, channel: Channel) -> bool {
        self.cancelled
            .get(&channel)
            .is_some_and(|below| number < *below)
    }

    /// Whether the child is still there to hear of the end of a request.
    pub(crate) fn is_wanted(&self, number: Number) -> bool {
        self.outstanding
            .get(&number)
            .is_some_and(|channel| self.open.contains(channel))
    }

    /// Ends a request. Returns what to call now, without the lock.
    #[must_use]
    pub(crate) fn finish(&mut self, number: Number) -> Vec<Done> {
        self.outstanding.remove(&number);
        self.ripe()
    }

    /// Keeps requests of `scope` that were not started from starting.
    pub(crate) fn cancel(&mut self, scope: Scope) {
        let channels: Vec<Channel> = match scope {
            Scope::One(channel) => vec![channel],
            Scope::All => self.outstanding.values().copied().collect(),
        };
        for channel in channels {
            self.cancelled.insert(channel, self.next);
        }
    }

    /// Calls `done` when all requests of `scope` with numbers below `below` have ended. Returns what to call now.
    #[must_use]
    pub(crate) fn barrier(&mut self, scope: Scope, below: Number, done: Done) -> Vec<Done> {
        self.barriers.push(Barrier { scope, below, done });
        self.ripe()
    }

    /// [`Flights::barrier`] for all requests that were taken so far.
    #[must_use]
    pub(crate) fn barrier_now(&mut self, scope: Scope, done: Done) -> Vec<Done> {
        self.barrier(scope, self.next, done)
    }

    /// Ends of requests of `channel` are not to be told from now on.
    pub(crate) fn close(&mut self, channel: Channel) {
        self.open.remove(&channel);
    }

    fn ripe(&mut self) -> Vec<Done> {
        let mut ripe = Vec::new();
        let mut index = 0;
        while let Some(barrier) = self.barriers.get(index) {
            let is_held = self
                .outstanding
                .range(..barrier.below)
                .any(|(_, channel)| barrier.scope.has(*channel));
            if is_held {
                index += 1;
            } else {
                ripe.push(self.barriers.remove(index).done);
            }
        }
        ripe
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn call(ripe: Vec<Done>) {
        for done in ripe {
            done();
        }
    }

    #[test]
    fn a_barrier_waits_for_what_is_older_only() {
        let mut flights = Flights::default();
        let (one, two) = (Channel(0), Channel(1));
        let first = flights.start(one);
        let other = flights.start(two);
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        let done = Box::new(move || set.store(true, Ordering::Relaxed));
        call(flights.barrier_now(Scope::One(one), done));
        let later = flights.start(one);
        call(flights.finish(other));
        call(flights.finish(later));
        assert!(!flag.load(Ordering::Relaxed));
        call(flights.finish(first));
        assert!(flag.load(Ordering::Relaxed));
    }

    proptest! {
        /// Against a model: a barrier is called exactly when the last older request of its scope has ended.
        #[test]
        fn barriers_are_called_once_and_in_time(
            steps in proptest::collection::vec((0u8..3, 0u16..3, any::<u8>()), 1..60),
        ) {
            let mut flights = Flights::default();
            let mut alive: Vec<(Number, Channel)> = Vec::new();
            let mut waiting: Vec<(Vec<Number>, Arc<AtomicBool>)> = Vec::new();
            for (step, channel, pick) in steps {
                let channel = Channel(channel);
                match step {
                    0 => alive.push((flights.start(channel), channel)),
                    1 if !alive.is_empty() => {
                        let (number, _) = alive.remove(usize::from(pick) % alive.len());
                        call(flights.finish(number));
                        for (held_by, _) in &mut waiting {
                            held_by.retain(|one| *one != number);
                        }
                    }
                    _ => {
                        let scope = if pick & 1 == 0 { Scope::All } else { Scope::One(channel) };
                        let held_by = alive.iter().filter(|(_, one)| scope.has(*one)).map(|(number, _)| *number);
                        let flag = Arc::new(AtomicBool::new(false));
                        let set = Arc::clone(&flag);
                        let done = Box::new(move || assert!(!set.swap(true, Ordering::Relaxed)));
                        waiting.push((held_by.collect(), flag));
                        call(flights.barrier_now(scope, done));
                    }
                }
                for (held_by, flag) in &waiting {
                    prop_assert_eq!(flag.load(Ordering::Relaxed), held_by.is_empty());
                }
            }
        }
    }
}
