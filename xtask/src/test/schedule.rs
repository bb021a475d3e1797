//! Which boot test runs when: machines share the host's processors and do not outnumber them.
//!
//! A guest that gets too little of its processors sees time jump, and its tests fail for no fault of the
//! hypervisor.

use std::sync::{Condvar, Mutex};

use super::Row;

/// The rows that have not started yet, and the processors that are free.
pub struct Schedule<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
    capacity: usize,
}

struct State<'a> {
    rows: Vec<Row<'a>>,
    free: usize,
}

impl<'a> Schedule<'a> {
    /// `rows` in the order in which they are wished for, on `capacity` processors.
    pub fn new(rows: &[Row<'a>], capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                rows: rows.to_vec(),
                free: capacity,
            }),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// How many processors the machine of `row` keeps busy. Bochs has one thread for all of its guest's.
    fn weight(&self, (_, model, case): &Row) -> usize {
        let processors = if model.is_bochs() {
            1
        } else {
            case.vps as usize
        };
        processors.min(self.capacity)
    }

    /// Waits for the first row that there is room for, and takes its processors. None when no row is left.
    pub fn take(&self) -> Option<Row<'a>> {
        let mut state = self.state.lock().ok()?;
        loop {
            if state.rows.is_empty() {
                return None;
            }
            let free = state.free;
            if let Some(index) = state.rows.iter().position(|row| self.weight(row) <= free) {
                let row = state.rows.remove(index);
                state.free -= self.weight(&row);
                return Some(row);
            }
            state = self.changed.wait(state).ok()?;
        }
    }

    /// Gives the processors of `row` back.
    pub fn give_back(&self, row: &Row) {
        if let Ok(mut state) = self.state.lock() {
            state.free += self.weight(row);
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runner::cases::Case;
    use runner::machine::Model;

    fn case(processors: u32) -> Case {
        runner::cases::parse(&format!(
            "[x]\nguest = 'cloud'\non = ['qemu-svm']\ntimeout_s = 9\nvps = {processors}\n"
        ))
        .unwrap()
        .remove("x")
        .unwrap()
    }

    #[test]
    fn a_wide_machine_waits_and_a_narrow_one_goes_first() {
        let (wide, narrow) = (case(4), case(1));
        let rows = [
            ("bochs", Model::BochsVmx, &wide),
            ("wide", Model::QemuSvm, &wide),
            ("narrow", Model::QemuSvm, &narrow),
        ];
        let schedule = Schedule::new(&rows, 2);
        let bochs = schedule.take().unwrap();
        let narrow = schedule.take().unwrap();
        assert_eq!((bochs.0, narrow.0), ("bochs", "narrow"));
        schedule.give_back(&bochs);
        schedule.give_back(&narrow);
        assert_eq!(schedule.take().unwrap().0, "wide");
        assert!(schedule.take().is_none());
    }
}
