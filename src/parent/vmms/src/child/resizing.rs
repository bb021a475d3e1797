//! Those who wait for a worker to look at the size of a disk.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::Outcome;

/// How long a worker may take for it: it does nothing else meanwhile, but an image on a slow disk is slow to be read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who waits for which unit, and until when.
#[derive(Default)]
pub struct Resizing(Vec<(u8, Instant, SyncSender<Outcome>)>);

impl Resizing {
    /// Somebody waits for unit `lun`.
    pub fn add(&mut self, lun: u8, reply: SyncSender<Outcome>) {
        self.0.push((lun, Instant::now() + PATIENCE, reply));
    }

    /// When the first of them has waited long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|(_, until, _)| *until).min()
    }

    /// Unit `lun` was looked at.
    pub fn done(&mut self, lun: u8) {
        self.answer(|wanted, _| wanted == lun, &Ok(()));
    }

    /// None of it will be done.
    pub fn fail(&mut self, why: &str) {
        self.answer(|_, _| true, &Err(why.to_owned()));
    }

    /// Those who have waited long enough at `now` wait no more.
    pub fn expire(&mut self, now: Instant) {
        let why = "its worker does not answer; `vmctl logs` may tell why. The child may yet see the new size";
        self.answer(|_, until| until <= now, &Err(why.to_owned()));
    }

    fn answer(&mut self, is_meant: impl Fn(u8, Instant) -> bool, outcome: &Outcome) {
        self.0.retain(|(lun, until, reply)| {
            let is_meant = is_meant(*lun, *until);
            if is_meant {
                // Who does not wait any more is not told.
                let _ = reply.send(outcome.clone());
            }
            !is_meant
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{TryRecvError, sync_channel};

    #[test]
    fn each_is_answered_once_and_nobody_waits_for_ever() {
        let mut resizing = Resizing::default();
        assert_eq!(resizing.deadline(), None);
        let (first, second) = (sync_channel(1), sync_channel(1));
        resizing.add(1, first.0);
        resizing.add(2, second.0);
        resizing.done(1);
        assert_eq!(first.1.try_recv(), Ok(Ok(())));
        resizing.expire(Instant::now());
        assert_eq!(second.1.try_recv(), Err(TryRecvError::Empty));
        let deadline = resizing.deadline().unwrap();
        assert!(deadline <= Instant::now() + PATIENCE);
        resizing.expire(deadline);
        assert!(second.1.recv().unwrap().unwrap_err().contains("answer"));
        assert_eq!(resizing.deadline(), None);
    }
}
