//! The Test Anything Protocol, as far as the guests speak it, on a console that firmware and kernel write to as well.

/// What the results on a console amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Number of `ok` lines.
    pub passed: usize,
    /// The `not ok` lines, each with the comment lines below it.
    pub failures: Vec<String>,
    /// The number of tests that the plan announces.
    pub planned: Option<usize>,
    /// `Bail out!`, with its reason.
    pub bailed_out: Option<String>,
}

impl Results {
    /// Collects the results from a console's text. Lines that are none are passed over.
    pub fn parse(console: &str) -> Self {
        let mut results = Self::default();
        let mut below_failure = false;
        for line in console.lines() {
            let line = line.trim_end_matches('\r');
            if line.starts_with("not ok ") {
                results.failures.push(line.to_owned());
                below_failure = true;
                continue;
            }
            match results.failures.last_mut() {
                Some(failure) if below_failure && line.starts_with('#') => {
                    failure.push_str("\n    ");
                    failure.push_str(line);
                    continue;
                }
                _ => below_failure = false,
            }
            if line.starts_with("ok ") {
                results.passed += 1;
            } else if let Some(count) = line.strip_prefix("1..") {
                results.planned = count.trim().parse().ok().or(results.planned);
            } else if let Some(reason) = line.strip_prefix("Bail out!") {
                results.bailed_out = Some(reason.trim().to_owned());
            }
        }
        results
    }

    /// What speaks against them; empty when every planned test ran and passed.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.failures.clone();
        let ran = self.passed + self.failures.len();
        match self.planned {
            None if ran == 0 => complaints.push("no test result was printed".to_owned()),
            None => complaints.push(format!("the tests stopped after {ran}, before their plan")),
            Some(0) => complaints.push("the plan is empty".to_owned()),
            Some(planned) if planned != ran => {
                complaints.push(format!("{planned} tests were planned, {ran} ran"));
            }
            Some(_) => {}
        }
        if let Some(reason) = &self.bailed_out {
            complaints.push(format!("the guest gave up: {reason}"));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_results_have_no_complaints() {
        let results =
            Results::parse("BdsDxe: starting\r\nok 1 - a\r\nok 2 - b\r\n[ 1.0] noise\r\n1..2\r\n");
        assert_eq!(results.passed, 2);
        assert!(results.complaints().is_empty());
    }

    #[test]
    fn a_failure_carries_its_comments() {
        let results = Results::parse("not ok 1 - a\n# why\nok 2 - b\n# not why\n1..2\n");
        assert_eq!(results.complaints(), ["not ok 1 - a\n    # why"]);
    }

    #[test]
    fn silence_and_half_a_run_are_failures() {
        assert_eq!(
            Results::parse("").complaints(),
            ["no test result was printed"]
        );
        assert!(!Results::parse("ok 1 - a\n").complaints().is_empty());
        assert!(!Results::parse("1..2\nok 1 - a\n").complaints().is_empty());
        assert!(!Results::parse("1..0\n").complaints().is_empty());
    }
}
