//! A machine of some LPs, played event by event.

use std::vec::Vec;

use super::{SLICE, Table};
use crate::*;

/// What a child does with its time: runs for `.0` ticks, halts for `.1` ticks, and so on. `.1` is 0 for no halt.
#[derive(Clone, Copy, Debug)]
pub struct Habit(pub u64, pub u64);

pub const SPIN: Habit = Habit(u64::MAX, 0);

pub struct Machine<'p> {
    pub table: Table,
    pub queues: Vec<RunQueue<'p>>,
    published: &'p [Published],
    habits: Vec<Habit>,
    /// Ticks until the child halts.
    to_run: Vec<u64>,
    running: Vec<Choice>,
    since: Vec<u64>,
    again: Vec<u64>,
    pub parents: Vec<ParentState>,
    pub parent_ticks: Vec<u64>,
    pub now: u64,
    pub moves: u64,
    /// Longest time that each waited for a processor while it was runnable.
    pub longest_wait: Vec<u64>,
    left_at: Vec<u64>,
}

impl<'p> Machine<'p> {
    pub fn new(published: &'p [Published], entities: Vec<(Entity, Habit)>) -> Self {
        let (entities, habits): (Vec<_>, Vec<_>) = entities.into_iter().unzip();
        let (lps, count) = (published.len(), entities.len());
        let mut machine = Self {
            table: Table(entities),
            queues: (0..)
                .zip(published)
                .map(|(lp, p)| RunQueue::new(lp, SLICE, p))
                .collect(),
            published,
            to_run: habits.iter().map(|habit| habit.0).collect(),
            habits,
            running: std::vec![Choice::Idle { until: u64::MAX }; lps],
            since: std::vec![0; lps],
            again: std::vec![0; lps],
            parents: std::vec![ParentState::Idle; lps],
            parent_ticks: std::vec![0; lps],
            now: 1 << 40,
            moves: 0,
            longest_wait: std::vec![0; count],
            left_at: std::vec![1 << 40; count],
        };
        for id in 0..count as u32 {
            machine.wake(id);
        }
        machine
    }

    pub fn wake(&mut self, id: u32) {
        let home = self.table.0[id as usize].home() as usize;
        let wake = self.queues[home]
            .wake(EntityId(id), self.now, &self.table)
            .unwrap();
        match wake {
            Wake::Preempt => self.again[home] = self.now,
            Wake::Queued => self.kick_idle(home),
            Wake::Already => {}
        }
    }

    /// The parent of an LP is interrupted.
    pub fn interrupt(&mut self, lp: usize) {
        self.parents[lp] = ParentState::Runnable { has_pending: true };
        self.again[lp] = self.now;
    }

    fn kick_idle(&mut self, lp: usize) {
        let lps = self.published.len() as u32;
        if let Some(idle) = idle_peer(lp as u32, lps, |lp| self.published.get(lp as usize)) {
            self.again[idle as usize] = self.now;
        }
    }

    /// Lets `ticks` pass.
    pub fn run(&mut self, ticks: u64) {
        let end = self.now + ticks;
        loop {
            let lp = (0..self.again.len())
                .min_by_key(|lp| self.again[*lp])
                .unwrap();
            if self.again[lp] >= end {
                break;
            }
            self.now = self.now.max(self.again[lp]);
            self.turn(lp);
        }
        self.now = end;
    }

    fn turn(&mut self, lp: usize) {
        let ran = self.now - self.since[lp];
        self.since[lp] = self.now;
        match self.running[lp] {
            Choice::Parent { .. } => self.parent_ticks[lp] += ran,
            Choice::Vp { id, .. } => {
                let i = id.0 as usize;
                self.to_run[i] -= ran.min(self.to_run[i]);
                self.left_at[i] = self.now;
                if self.to_run[i] == 0 && self.queues[lp].is_current(id) {
                    let Habit(run, halt) = self.habits[i];
                    self.to_run[i] = run;
                    let deadline = Some(self.now + halt);
                    assert_eq!(
                        self.queues[lp].block(id, deadline, self.now, &self.table),
                        Ok(true)
                    );
                    self.left_at[i] = self.now + halt;
                }
            }
            Choice::Idle { .. } => {}
        }
        let mut choice = self.choose(lp);
        let lps = self.published.len() as u32;
        if let Some(victim) =
            self.queues[lp].balance(lps, |lp| self.published.get(lp as usize), &self.table)
            && let Some(id) = self.queues[victim as usize].steal(lp as u32, &self.table)
        {
            self.moves += 1;
            self.queues[lp].adopt(id, self.now, &self.table).unwrap();
            choice = self.choose(lp);
        }
        if self.queues[lp].has_surplus(self.now) {
            self.kick_idle(lp);
        }
        self.running[lp] = choice;
        self.again[lp] = match choice {
            Choice::Parent { until } | Choice::Idle { until } => until,
            Choice::Vp { id, until } => {
                let i = id.0 as usize;
                let waited = self.now.saturating_sub(self.left_at[i]);
                self.longest_wait[i] = self.longest_wait[i].max(waited);
                until.min(self.now.saturating_add(self.to_run[i]))
            }
        };
        // Events for the parent are taken at once.
        if matches!(choice, Choice::Parent { .. })
            && let ParentState::Runnable { has_pending } = &mut self.parents[lp]
        {
            *has_pending = false;
        }
    }

    fn choose(&mut self, lp: usize) -> Choice {
        self.queues[lp].choose(self.now, self.parents[lp], &self.table)
    }

    /// Fraction of one LP that each child had in the last `ticks`, `before` being [`Machine::runtimes`] then.
    pub fn shares(&self, before: &[u64], ticks: u64) -> Vec<f64> {
        self.runtimes()
            .iter()
            .zip(before)
            .map(|(now, then)| (now - then) as f64 / ticks as f64)
            .collect()
    }

    pub fn runtimes(&self) -> Vec<u64> {
        self.table.0.iter().map(Entity::runtime).collect()
    }
}
