//! Which groups run, and how long: the words of the load options.

use machine::options::load_options;
use machine::verdict;

use crate::group::GROUPS;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    groups: u32,
    /// First state of the generators; never 0.
    pub seed: u64,
    /// Children made and unmade by the group `cycles`.
    pub cycles: u32,
    /// Random calls of the group `hostile`.
    pub calls: u64,
    /// Of the ports and MSRs, the group `hostile` takes one in so many.
    pub step: u64,
    /// The one part of the group `hostile` that runs, by its number; 0 for all.
    pub part: u64,
    /// Seconds of the group `weights`.
    pub seconds: u64,
}

impl Options {
    const USUAL: Self = Self {
        groups: 0,
        seed: 42,
        cycles: 200,
        calls: 20_000,
        step: 13,
        part: 0,
        seconds: 4,
    };

    /// Whether the group `name` was asked for.
    pub fn has(&self, name: &str, is_usual: bool) -> bool {
        let bit = GROUPS.iter().position(|group| group.name == name);
        if self.groups == 0 {
            return is_usual;
        }
        bit.is_some_and(|bit| self.groups >> bit & 1 != 0)
    }

    /// Reads the load options; an unknown word is a failed test, so that a misspelt name cannot pass by running
    /// nothing.
    pub fn of_this_image() -> Self {
        let mut options = Self::USUAL;
        let mut text = [0_u8; 512];
        for word in load_options(&mut text).split_ascii_whitespace() {
            options.take(word);
        }
        options
    }

    fn take(&mut self, word: &str) {
        let number = |prefix: &str| -> Option<u64> { word.strip_prefix(prefix)?.parse().ok() };
        if let Some(bit) = GROUPS.iter().position(|group| group.name == word) {
            self.groups |= 1 << bit;
        } else if word == "all" {
            for (bit, _) in GROUPS
                .iter()
                .enumerate()
                .filter(|(_, group)| group.is_usual)
            {
                self.groups |= 1 << bit;
            }
        } else if let Some(seed) = number("seed=") {
            self.seed = seed.max(1);
        } else if let Some(cycles) = number("cycles=") {
            self.cycles = cycles as u32;
        } else if let Some(calls) = number("calls=") {
            self.calls = calls;
        } else if let Some(step) = number("step=") {
            self.step = step.max(1);
        } else if let Some(part) = number("part=") {
            self.part = part;
        } else if let Some(seconds) = number("seconds=") {
            self.seconds = seconds;
        } else if let Some(name) = word.strip_prefix("mark=") {
            machine::mark::want(name);
        } else if word.ends_with(".efi") || word.ends_with(".EFI") {
            // A shell's first word is the name of the program.
        } else {
            verdict::check(format_args!("option {word} is known"), false);
        }
    }
}
