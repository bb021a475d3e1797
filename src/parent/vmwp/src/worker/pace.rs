//! When the loop sleeps, and when it looks at sockets.

/// Turns of the loop after which sockets are looked at all the same.
const TURNS: u32 = 64;

/// What is to be done before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Turn,
    /// To look at sockets.
    Look,
    /// To sleep until something comes, which looks at sockets as well. To be followed by [`Pace::stay_awake`] where
    /// something has come already.
    Sleep,
}

/// Counts turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Turns since sockets were looked at.
    turns: u32,
}

impl Pace {
    /// After a turn. `is_busy`: there were packets, or the last ones were not long ago.
    pub fn next(&mut self, is_busy: bool) -> Next {
        self.turns = self.turns.saturating_add(1);
        if is_busy { self.look() } else { Next::Sleep }
    }

    /// What to do instead of [`Next::Sleep`].
    pub fn stay_awake(&mut self) -> Next {
        self.look()
    }

    fn look(&mut self) -> Next {
        if self.turns <= TURNS {
            return Next::Turn;
        }
        self.turns = 0;
        Next::Look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_loop_sleeps_and_a_busy_one_does_not() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(true), Next::Turn);
        assert_eq!(pace.next(false), Next::Sleep);
        assert_eq!(pace.next(true), Next::Turn);
    }

    /// Whether sockets are looked at within 100 turns in which nobody sleeps.
    fn looks(is_busy: bool) -> bool {
        let mut pace = Pace::default();
        (0..100).any(|_| {
            let next = match pace.next(is_busy) {
                Next::Sleep => pace.stay_awake(),
                next => next,
            };
            next == Next::Look
        })
    }

    #[test]
    fn no_child_keeps_the_loop_from_the_daemon() {
        assert!(looks(true), "packets without end");
        assert!(looks(false), "intercepts without end");
    }
}
