//! When the loop sleeps, and when it looks at sockets.

/// Turns of the loop without sleep after the last packet of the child: the next one is often near.
const LOOKS: u32 = 10;
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
    /// Turns since the last packet.
    looks: u32,
    /// Turns since sockets were looked at.
    turns: u32,
}

impl Pace {
    /// After a turn. `is_busy`: there were packets. Only while the VPs run are others worth waiting for awake.
    pub fn next(&mut self, is_busy: bool, is_running: bool) -> Next {
        self.turns = self.turns.saturating_add(1);
        self.looks = if is_busy { 0 } else { self.looks + 1 };
        if self.looks > LOOKS || (!is_busy && !is_running) {
            self.looks = LOOKS;
            return Next::Sleep;
        }
        self.look()
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
    fn an_idle_loop_looks_a_few_times_and_sleeps() {
        let mut pace = Pace::default();
        for _ in 0..LOOKS {
            assert_eq!(pace.next(false, true), Next::Turn);
        }
        assert_eq!(pace.next(false, true), Next::Sleep);
        assert_eq!(pace.next(true, true), Next::Turn);
        assert_eq!(pace.next(false, false), Next::Sleep);
    }

    /// Whether sockets are looked at within 100 turns in which nobody sleeps.
    fn looks(is_busy: bool) -> bool {
        let mut pace = Pace::default();
        (0..100).any(|_| {
            let next = match pace.next(is_busy, true) {
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
