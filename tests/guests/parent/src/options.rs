//! Which groups run: the words of the load options.

use machine::options::load_options;
use machine::verdict;

/// A group of tests by its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

/// Names of the groups, in the order in which they run. The last needs to be named to run.
const NAMES: [(&str, Group); 15] = [
    ("cpuid", Group::CPUID),
    ("msr", Group::MSR),
    ("exceptions", Group::EXCEPTIONS),
    ("hypercall", Group::HYPERCALL),
    ("time", Group::TIME),
    ("apic", Group::APIC),
    ("synic", Group::SYNIC),
    ("stimer", Group::STIMER),
    ("assist", Group::ASSIST),
    ("timer", Group::TIMER),
    ("memory", Group::MEMORY),
    ("fuzz", Group::FUZZ),
    ("ipi", Group::IPI),
    ("x2apic", Group::X2APIC),
    ("bench", Group::BENCH),
];

#[allow(missing_docs)]
impl Group {
    pub const CPUID: Self = Self(1 << 0);
    pub const MSR: Self = Self(1 << 1);
    pub const EXCEPTIONS: Self = Self(1 << 2);
    pub const HYPERCALL: Self = Self(1 << 3);
    pub const TIME: Self = Self(1 << 4);
    pub const APIC: Self = Self(1 << 5);
    pub const SYNIC: Self = Self(1 << 6);
    pub const STIMER: Self = Self(1 << 7);
    pub const TIMER: Self = Self(1 << 8);
    pub const MEMORY: Self = Self(1 << 9);
    pub const FUZZ: Self = Self(1 << 10);
    pub const IPI: Self = Self(1 << 11);
    pub const X2APIC: Self = Self(1 << 12);
    pub const ASSIST: Self = Self(1 << 13);
    pub const BENCH: Self = Self(1 << 14);
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    groups: u32,
    /// First state of the generator of the fuzz group; never 0.
    pub seed: u64,
    /// Rounds of the fuzz group.
    pub rounds: u32,
}

impl Options {
    /// Everything except the measurements.
    const ALL: Self = Self {
        groups: Group::BENCH.0 - 1,
        seed: 42,
        rounds: 4000,
    };

    /// Whether `group` was asked for.
    pub fn has(&self, group: Group) -> bool {
        self.groups & group.0 != 0
    }

    /// Reads the load options. What is not text counts as none (a boot manager's own data); an unknown word is
    /// a failed test, so that a misspelt name cannot pass by running nothing.
    pub fn of_this_image() -> Self {
        let mut options = Self {
            groups: 0,
            ..Self::ALL
        };
        let mut text = [0_u8; 512];
        let words = load_options(&mut text);
        for word in words.split_ascii_whitespace() {
            options.take(word);
        }
        if options.groups == 0 {
            options.groups = Self::ALL.groups;
        }
        options
    }

    fn take(&mut self, word: &str) {
        if let Some((_, group)) = NAMES.iter().find(|(name, _)| *name == word) {
            self.groups |= group.0;
        } else if word == "all" {
            self.groups |= Self::ALL.groups;
        } else if let Some(seed) = word
            .strip_prefix("seed=")
            .and_then(|number| number.parse().ok())
        {
            self.seed = if seed == 0 { 1 } else { seed };
        } else if let Some(rounds) = word
            .strip_prefix("rounds=")
            .and_then(|number| number.parse().ok())
        {
            self.rounds = rounds;
        } else if let Some(name) = word.strip_prefix("mark=") {
            machine::mark::want(name);
        } else if names_a_program(word) {
            // A shell's first word is the name of the program.
        } else {
            verdict::check(format_args!("option {word} is known"), false);
        }
    }
}

fn names_a_program(word: &str) -> bool {
    word.len()
        .checked_sub(4)
        .and_then(|start| word.get(start..))
        .is_some_and(|end| end.eq_ignore_ascii_case(".efi"))
}
