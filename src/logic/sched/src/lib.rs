//! Which VP runs on an LP, and until when.
//!
//! Each LP has one [`RunQueue`], under a lock of its own. What is queued are [`Entity`]s: one lies in every child VP,
//! and a queue links them by [`EntityId`] through [`Entities`], so no table grows with the number of VPs and every
//! step takes O(log n) time. The parent's VP of the LP is not queued; its state comes with each choice.
//!
//! - **Weights.** Running raises an entity's virtual time by the ticks it ran times 100 over its weight, and the one
//!   with the lowest virtual time runs next. Queues of all LPs use one scale of virtual time.
//! - **Parent first.** A parent that wakes, or has an interrupt, goes before all children, for a slice at most and
//!   for three quarters of the time at most. Beyond that it has a share as ten children of default weight.
//! - **Between LPs.** After a choice, [`RunQueue::balance`] compares it with what others publish of their queues
//!   ([`Published`], no lock), and names the LP to steal from. The LP then does, with one lock at a time:
//!   `victim.steal(my_lp)`, `mine.adopt(id)`, `mine.choose(..)`.
//! - **Caps.** An entity that used its percentage of a period waits for the next one.
//! - **Halted VPs** wait outside the queue, those with a deadline in a heap of their own.
//!
//! Whoever wakes or removes an entity takes the lock of its [home](Entity::home); when that has changed until the
//! lock is held the operation is refused with [`Refused::Elsewhere`], to be tried again. A stolen entity belongs to the
//! thief's queue from the moment it leaves the victim's. Times are TSC ticks.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod entity;
mod heap;
mod line;
mod parent;
mod published;
mod queue;

#[cfg(test)]
mod tests;

pub use entity::{Entities, Entity, EntityId, Share};
pub use line::Line;
pub use parent::ParentState;
pub use published::{Published, idle_peer};
pub use queue::{Choice, Refused, RunQueue, Wake};
