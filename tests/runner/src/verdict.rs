//! Whether a run was good, and if not, why.

use crate::cases::{Case, ExpectedEnd};
use crate::session::{End, Outcome};
use crate::tap;

/// Lines of the parent that end a run early, since nothing good comes after them.
pub const FATAL: [&str; 3] = [
    "---[ end Kernel panic",
    "Kernel panic - not syncing",
    "verdigris: hypervisor panic",
];

/// What speaks against a run of `case`; empty when it passed.
pub fn complaints(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(complaint) = wrong_end(case, outcome) {
        complaints.push(complaint);
    }
    if outcome.resets != case.resets && outcome.end != End::Reset {
        complaints.push(format!(
            "the guest reset the machine {} times, {} were expected",
            outcome.resets, case.resets
        ));
    }
    if case.tap {
        complaints.extend(tap::Results::parse(&outcome.parent).complaints());
    }
    let said = |text: &String| outcome.parent.contains(text) || outcome.hypervisor.contains(text);
    for text in case.expect.iter().filter(|text| !said(text)) {
        complaints.push(format!("`{text}` was expected and not printed"));
    }
    for text in case.forbid.iter().filter(|text| said(text)) {
        complaints.push(format!("`{text}` was printed and must not be"));
    }
    complaints
}

fn wrong_end(case: &Case, outcome: &Outcome) -> Option<String> {
    let is_silent = outcome.parent.trim().is_empty() && outcome.hypervisor.trim().is_empty();
    let seconds = outcome.elapsed.as_secs();
    match (outcome.end, case.end) {
        (End::PowerOff, ExpectedEnd::PowerOff)
        | (End::Reset, ExpectedEnd::Reset)
        | (End::StopLine, ExpectedEnd::Lines) => None,
        // The test device's code: 0x10 is the test parent's word for success.
        (End::ExitCode(0x10), ExpectedEnd::PowerOff) => None,
        (End::ExitCode(code), _) => {
            Some(format!("the guest ended the machine with code {code:#x}"))
        }
        (End::Reset, _) => Some(format!("reset: the machine reset after {seconds} s")),
        (End::TimedOut, _) if is_silent => Some(format!(
            "silence: nothing on either serial port in {seconds} s"
        )),
        (End::TimedOut, _) => Some(format!("time-out: stopped after {seconds} s")),
        (End::EmulatorFailed, _) => Some(format!(
            "the emulator failed: {}",
            outcome.emulator.lines().last().unwrap_or("it said nothing")
        )),
        (End::StopLine, _) => Some("stopped after a fatal line".to_owned()),
        (End::PowerOff, _) => Some("the machine switched itself off".to_owned()),
    }
}

/// The lines that end a run of `case` early.
pub fn stop_lines(case: &Case) -> Vec<String> {
    let fatal = FATAL
        .iter()
        .filter(|line| !case.expect.iter().any(|e| e.contains(**line)));
    let mut lines: Vec<String> = fatal.map(|line| (*line).to_owned()).collect();
    if case.end == ExpectedEnd::Lines {
        // The last one: the others are looked for in what was printed by then.
        lines.extend(case.expect.last().cloned());
    } else if case.crashes || case.end == ExpectedEnd::Reset {
        lines.clear();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn case(text: &str) -> Case {
        toml::from_str(&format!(
            "guest = 'cloud'\non = ['qemu-svm']\ntimeout_s = 9\n{text}"
        ))
        .unwrap()
    }

    fn outcome(end: End, parent: &str) -> Outcome {
        Outcome {
            end,
            resets: 0,
            parent: parent.to_owned(),
            hypervisor: String::new(),
            emulator: String::new(),
            elapsed: Duration::from_secs(9),
        }
    }

    #[test]
    fn good_results_and_a_power_off_pass() {
        let run = outcome(End::PowerOff, "ok 1 - a\n1..1\n");
        assert!(complaints(&case(""), &run).is_empty());
    }

    #[test]
    fn silence_reset_and_time_out_are_told_apart() {
        let text = |end, parent| {
            complaints(&case("tap = false\nexpect = ['']"), &outcome(end, parent)).join("\n")
        };
        assert!(text(End::TimedOut, "").starts_with("silence"));
        assert!(text(End::TimedOut, "firmware").starts_with("time-out"));
        assert!(text(End::Reset, "firmware").starts_with("reset"));
    }

    #[test]
    fn expected_and_forbidden_lines_are_looked_for() {
        let case = case("tap = false\nexpect = ['Hyper-V']\nforbid = ['BUG']");
        assert_eq!(
            complaints(&case, &outcome(End::PowerOff, "BUG: x")).len(),
            2
        );
        assert!(complaints(&case, &outcome(End::PowerOff, "Hyper-V")).is_empty());
    }
}
