//! A back end, and what it may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use addr::Gpn;
use vmbus_proto::{GpadlHandle, Relid};

use super::world::*;
use crate::{Notice, ResetRule, Server};

/// What a back end has heard and not answered, and what it has mapped.
#[derive(Default)]
pub struct BackEnd {
    pub unanswered: Vec<Notice>,
    /// GPADLs by handle, and whose they are.
    pub held: BTreeMap<u32, u32>,
    /// Channels that it was asked to open and has not left.
    pub rings: BTreeMap<u32, u32>,
    pub opened: BTreeSet<u32>,
}

impl BackEnd {
    /// Fetches a notice and looks whether it may come.
    pub fn fetch(&mut self, world: &mut World) {
        let Some(notice) = world.bus().next_notice() else {
            return;
        };
        world.check();
        let about = |notice: &Notice| match *notice {
            Notice::Open(opening) | Notice::IsOpen(opening) => (1, opening.relid.0),
            Notice::Close(relid) | Notice::Released(relid) => (1, relid.0),
            Notice::GpadlTeardown(_, handle) => (2, handle.0),
            Notice::Reset(_) => (3, 0),
        };
        if matches!(notice, Notice::Reset(_)) {
            // It answers for all of them.
            self.unanswered.clear();
        }
        let is_second = self
            .unanswered
            .iter()
            .any(|other| about(other) == about(&notice));
        assert!(
            !is_second,
            "{notice:?} before {:?} was answered",
            self.unanswered
        );
        match notice {
            Notice::Open(opening) => {
                let before = self.rings.insert(opening.relid.0, opening.ring.0);
                assert!(before.is_none(), "opened twice");
            }
            Notice::IsOpen(opening) => {
                self.rings.insert(opening.relid.0, opening.ring.0);
                self.opened.insert(opening.relid.0);
                return;
            }
            Notice::GpadlTeardown(_, handle) => {
                assert!(
                    !self.rings.values().any(|ring| *ring == handle.0),
                    "of a ring in use"
                );
            }
            Notice::Released(relid) => {
                self.left(relid.0);
                return;
            }
            Notice::Close(_) | Notice::Reset(_) => {}
        }
        self.unanswered.push(notice);
    }

    fn left(&mut self, relid: u32) {
        self.rings.remove(&relid);
        self.opened.remove(&relid);
    }

    /// Answers the notice at `index`, openings with success if `is_willing`.
    pub fn answer(&mut self, world: &mut World, index: usize, is_willing: bool) {
        if self.unanswered.is_empty() {
            return;
        }
        let notice = self.unanswered.swap_remove(index % self.unanswered.len());
        let is_resetting = self.is_resetting(world);
        let outcome = match notice {
            Notice::Open(opening) => {
                let relid = opening.relid.0;
                if is_willing {
                    self.take(world, relid, opening.ring.0);
                    self.opened.insert(relid);
                } else {
                    self.left(relid);
                }
                world.bus().opened(opening.relid, u32::from(!is_willing))
            }
            Notice::Close(relid) => {
                self.left(relid.0);
                world.bus().closed(relid)
            }
            Notice::GpadlTeardown(relid, handle) => {
                self.held.remove(&handle.0);
                world.bus().gpadl_done(relid, handle)
            }
            Notice::Reset(_) => {
                self.held.clear();
                self.rings.clear();
                self.opened.clear();
                world.bus().reset_done(false)
            }
            Notice::IsOpen(_) | Notice::Released(_) => unreachable!(),
        };
        world.check();
        assert!(outcome.is_ok() || is_resetting, "{notice:?}: {outcome:?}");
    }

    /// A reset that the back end has not heard of voids its answers.
    fn is_resetting(&self, world: &World) -> bool {
        world.server.connection.state == crate::connection::ConnectionState::Resetting
    }

    /// Maps a GPADL.
    pub fn take(&mut self, world: &mut World, relid: u32, handle: u32) {
        let mut pages = [Gpn::default(); 3];
        let got = world
            .bus()
            .gpadl_pages(Relid(relid), GpadlHandle(handle), 0, &mut pages);
        if got.is_ok() {
            self.held.insert(handle, relid);
        }
    }

    /// Takes a channel back, off all its memory.
    pub fn rescind(&mut self, world: &mut World, relid: u32) {
        if world.bus().rescind(Relid(relid)).is_ok() {
            self.held.retain(|_, owner| *owner != relid);
            self.left(relid);
            self.unanswered.retain(|notice| match *notice {
                Notice::Open(opening) => opening.relid.0 != relid,
                Notice::Close(other) | Notice::GpadlTeardown(other, _) => other.0 != relid,
                _ => true,
            });
        }
        world.check();
    }

    /// Another process takes over.
    pub fn attach(&mut self, world: &mut World) {
        world.bus().attach();
        world.check();
        for notice in self.unanswered.drain(..) {
            // It hears of the opening again, or of a closing.
            if let Notice::Open(opening) = notice {
                self.rings.remove(&opening.relid.0);
            }
        }
    }

    /// The state moves to another server, and with it another back end.
    pub fn migrate(&mut self, world: &mut World, chunks: [usize; 2]) {
        let state = save(world, chunks[0]);
        while world.bus().release() {}
        assert!(world.pool.used.is_empty());
        world.server = Server::new(world.quota, ResetRule::WhenInUse);
        restore(world, &state, chunks[1]).unwrap();
        world.check();
        *self = Self::default();
    }

    /// The client is told that `handle` is its own again.
    pub fn expect_off(&self, handle: u32) {
        assert!(!self.held.contains_key(&handle), "held");
        assert!(
            !self.rings.values().any(|ring| *ring == handle),
            "a ring in use"
        );
    }
}

pub fn save(world: &mut World, chunk: usize) -> Vec<u8> {
    let mut state = Vec::new();
    loop {
        let mut room = std::vec![0xEE; chunk];
        let total = world.bus().save(state.len() as u32, &mut room) as usize;
        let left = total - state.len();
        state.extend(&room[..left.min(chunk)]);
        if left <= chunk {
            return state;
        }
    }
}

pub fn restore(world: &mut World, state: &[u8], chunk: usize) -> Result<(), tlfs::HvError> {
    let mut at = 0;
    for part in state.chunks(chunk) {
        let is_last = at + part.len() == state.len();
        let done = world
            .bus()
            .restore(state.len() as u32, at as u32, part, &mut Machine)?;
        assert_eq!(done, is_last);
        at += part.len();
    }
    Ok(())
}
