//! The results as one reads them.

use std::time::Duration;

/// How one boot test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// For these reasons, not.
    Failed(Vec<String>),
    /// It fails, and `cases.toml` says why.
    KnownFailure(String),
    /// It went with these complaints, or none; `cases.toml` says why that does not count yet.
    Trial {
        /// The reason.
        why: String,
        /// What was wrong this time.
        complaints: Vec<String>,
    },
    /// It passes, although `cases.toml` says that it fails: that line must go.
    UnexpectedPass(String),
}

/// The counts of all tests so far.
#[derive(Debug, Default)]
pub struct Totals {
    passed: usize,
    failures: Vec<String>,
    known: Vec<String>,
}

impl Totals {
    /// Adds the host suite's counts.
    pub fn add_host(&mut self, passed: usize, failed: usize) {
        self.passed += passed;
        for _ in 0..failed {
            self.failures.push("host test".to_owned());
        }
    }

    /// Adds a boot test and prints its line.
    pub fn add(&mut self, label: &str, verdict: &Verdict, elapsed: Duration) {
        let seconds = elapsed.as_secs_f32();
        match verdict {
            Verdict::Passed => {
                println!("ok      {label} ({seconds:.1} s)");
                self.passed += 1;
            }
            Verdict::Failed(complaints) => {
                println!("FAILED  {label} ({seconds:.1} s)");
                for complaint in complaints {
                    println!("        {complaint}");
                }
                self.failures.push(label.to_owned());
            }
            Verdict::KnownFailure(why) => {
                println!("known   {label} ({seconds:.1} s): {why}");
                self.known.push(format!("{label}: {why}"));
            }
            Verdict::Trial { why, complaints } => {
                let word = if complaints.is_empty() {
                    "passes"
                } else {
                    "FAILS"
                };
                println!("trial   {label} ({seconds:.1} s): {word}; does not count: {why}");
                for complaint in complaints {
                    println!("        {complaint}");
                }
                self.known.push(format!("{label}: on trial, {word}: {why}"));
            }
            Verdict::UnexpectedPass(why) => {
                println!(
                    "FAILED  {label} ({seconds:.1} s): it passes now; remove its `known = \"{why}\"`"
                );
                self.failures.push(label.to_owned());
            }
        }
    }

    /// Notes that a boot test failed at its first try and was run again.
    pub fn add_first_try(&mut self, label: &str, complaints: &[String]) {
        println!("again   {label}: its first try failed");
        for complaint in complaints {
            println!("        {complaint}");
        }
        self.known.push(format!(
            "{label}: first try failed: {}",
            complaints.join("; ")
        ));
    }

    /// Number of tests that failed.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Number of tests that passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Prints the summary; its last line is for machines.
    pub fn print(&self) {
        for line in &self.known {
            println!("not counted: {line}");
        }
        for line in &self.failures {
            println!("failed: {line}");
        }
        println!("{} passed, {} failed", self.passed, self.failed());
    }
}
