//! Results in TAP on the console, numbered through all starts of the child.

use core::fmt::{Display, Write};

use crate::machine::Com1;

/// Counts results.
pub struct Report {
    /// Results so far.
    pub count: u64,
}

impl Report {
    /// Tells one result.
    pub fn check(&mut self, name: impl Display, holds: bool) -> bool {
        self.count += 1;
        let word = if holds { "ok" } else { "not ok" };
        let _ = writeln!(Com1, "{word} {} - {name}", self.count);
        holds
    }

    /// Tells the number of results, as the last line.
    pub fn finish(&self) {
        let _ = writeln!(Com1, "1..{}", self.count);
    }
}
