//! What a child's kernel reports of its crash.

use vmms_proto::CrashInfo;
use worker_link::CRASH_TEXT_MAX;

use super::thread::Thread;
use crate::log::harmless;

impl Thread {
    /// Notes a crash, in the log and for those who ask.
    pub(super) fn crashed(&mut self, parameters: [u64; 5], text: Option<&str>) {
        let crash = crash(parameters, text);
        self.crashes.count = self.crashes.count.saturating_add(1);
        self.crashes.last = Some(crash.clone());
        if let Some(existing) = &mut self.existing {
            existing.record.crashes = self.crashes.clone();
            if let Err(error) = existing.record.save(&self.machine.paths.records()) {
                self.note(&format!(
                    "the next daemon will not know of a crash: {error}"
                ));
            }
        }
        self.note(&format!("its kernel reports a crash: {parameters:x?}"));
        for line in crash.text.iter().flat_map(|text| text.lines()) {
            self.note(&format!("its last words: {line}"));
        }
    }
}

/// A worker may be in its child's hands, and says no more than a child could.
fn crash(parameters: [u64; 5], text: Option<&str>) -> CrashInfo {
    let line = |line: &str| harmless(line) + "\n";
    let text = text.map(|text| {
        let text: String = text.chars().take(CRASH_TEXT_MAX).collect();
        text.lines().map(line).collect()
    });
    CrashInfo {
        time: std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs(),
        parameters,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_text_and_not_longer_than_a_child_can_say() {
        let long = format!("a\u{1b}[2J\r\n<0>b{}", "\u{FFFD}".repeat(9000));
        let text = crash([1; 5], Some(&long)).text.unwrap();
        assert!(text.starts_with("a?[2J\n<0>b"), "{text:.20}");
        assert!(text.chars().count() <= CRASH_TEXT_MAX + 1);
        assert_eq!(crash([0; 5], None).text, None);
    }
}
