//! What a daemon leaves of a child for the next one.

use vmms_proto::ChildState;
use worker_link::ToWorker;

use super::build::adopt;
use super::thread::Thread;
use crate::life::{Action, Event, Life};
use crate::record::{Record, Waiting};

impl Thread {
    pub(super) fn find_again(&mut self, record: Record) {
        self.life = Life::adopted(record.description.restart, record.starts);
        self.life.on_crash = record.description.on_crash;
        self.description = Some(record.description.clone());
        self.crashes = record.crashes.clone();
        self.begun = Some(record.clone());
        match adopt(&self.machine, record) {
            Ok(existing) => {
                self.note("found again after a restart of vmms");
                self.existing = Some(existing);
                self.tell(&ToWorker::Report);
                self.happens(Event::Built);
            }
            Err(why) => {
                self.note(&format!("what is left of it is taken apart: {why}"));
                self.happens(Event::BuildFailed(why));
            }
        }
    }

    pub(super) fn wait_again(&mut self, waiting: Waiting) {
        self.life = Life::waiting(&waiting);
        self.description = Some(waiting.description);
        self.crashes = waiting.crashes;
        self.carry_out(vec![Action::Wake(self.life.pause())]);
    }

    /// Notes for a daemon after this one whether it waits.
    pub(super) fn note_waiting(&mut self) {
        let directory = self.machine.paths.waiting();
        match (self.life.state(), &self.description) {
            (ChildState::Waiting, Some(description)) => {
                let waiting = Waiting {
                    description: description.clone(),
                    starts: self.life.starts,
                    crashes: self.crashes.clone(),
                    last_end: self.life.last_end.clone(),
                    early_ends: self.life.early_ends,
                };
                if let Err(error) = waiting.save(&directory) {
                    self.note(&format!("{}: {error}", directory.display()));
                }
            }
            // Until it has a record again, or needs none.
            (ChildState::Starting, _) => {}
            _ => Waiting::remove(&directory, &self.name),
        }
    }
}
