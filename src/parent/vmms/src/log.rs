//! The log of one child: what happened to it, and what its worker said. At most two files of [`FILE_MAX`] bytes.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a file before the next is begun.
const FILE_MAX: u64 = 1 << 20;
/// Lines of one minute: a worker that writes without end would keep the disk busy.
const LINES_MAX: u32 = 2000;
const MINUTE: Duration = Duration::from_secs(60);
/// Bytes of the longest line that is kept whole.
const LINE_MAX: usize = 4096;

/// Writes a line to standard error, which may be a terminal: nothing but text reaches it. Unlike `eprintln!` it does not
/// mind when nobody reads it: a full disk or a closed pipe would end the process, and the files it keeps with it.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {
        $crate::log::say_to(&mut std::io::stderr(), &format!($($part)*))
    };
}

/// What [`say!`](crate::say) does with standard error.
pub fn say_to(mut to: impl Write, text: &str) {
    let mut line = harmless(text);
    line.push('\n');
    // Nobody reads it: nothing helps.
    let _ = to.write_all(line.as_bytes());
}

/// `text` without what a terminal would do more with than show it, on one line.
pub fn harmless(text: &str) -> String {
    let mark = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().map(mark).collect()
}

/// Bytes of the logs that are shown: with a mark before each quote it is still a line of the protocol.
const SHOWN_MAX: usize = 480 * 1024;

/// A log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    /// What came of a line that is not complete.
    partial: Vec<u8>,
    /// Since when lines are counted.
    since: Instant,
    /// Lines since then.
    lines: u32,
}

impl Log {
    /// The log of child `name` in `directory`. What cannot be written is left out.
    pub fn open(directory: &Path, name: &str) -> Self {
        let mut log = Self {
            path: directory.join(format!("{name}.log")),
            file: None,
            bytes: 0,
            partial: Vec::new(),
            since: Instant::now(),
            lines: 0,
        };
        log.begin();
        log
    }

    fn begin(&mut self) {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        self.file = file
            .map_err(|error| crate::say!("vmms: {}: {error}", self.path.display()))
            .ok();
        let length = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.bytes = length.map_or(0, |data| data.len());
    }

    /// Notes one line of the daemon's own. Whether there was room for it: where a worker makes it say much, it does not go
    /// anywhere else either.
    pub fn note(&mut self, text: &str) -> bool {
        self.line(text.as_bytes())
    }

    /// Notes what the worker wrote, whole lines at a time.
    pub fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.partial.len() >= LINE_MAX {
                let line = std::mem::take(&mut self.partial);
                self.line(&line);
            }
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> bool {
        if self.since.elapsed() >= MINUTE {
            (self.since, self.lines) = (Instant::now(), 0);
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines.cmp(&LINES_MAX) {
            Ordering::Less => self.write(line),
            Ordering::Equal => self.write(b"more lines of this minute are left out"),
            Ordering::Greater => {}
        }
        self.lines < LINES_MAX
    }

    fn write(&mut self, line: &[u8]) {
        if self.bytes > FILE_MAX {
            let _ = fs::rename(&self.path, old(&self.path));
            self.begin();
        }
        let mut text = format!("{} ", now()).into_bytes();
        // A worker may be in its child's hands: nothing of it reaches a terminal but text.
        let is_text = |byte: &u8| (b' '..0x7F).contains(byte) || *byte == b'\t';
        text.extend(
            line.iter()
                .map(|byte| if is_text(byte) { *byte } else { b'?' }),
        );
        text.push(b'\n');
        self.bytes += text.len() as u64;
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&text);
        }
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The last `lines` lines of the log of child `name`.
///
/// # Errors
/// What the file system says; a log that does not exist is empty.
pub fn last(directory: &Path, name: &str, lines: usize) -> io::Result<String> {
    let path = directory.join(format!("{name}.log"));
    let mut bytes = fs::read(old(&path)).unwrap_or_default();
    match fs::read(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        other => bytes.extend(other.unwrap_or_default()),
    }
    let from = bytes.len().saturating_sub(SHOWN_MAX);
    let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default());
    let all: Vec<&str> = text.lines().collect();
    // A line that is cut off is left out.
    let cut = usize::from(from > 0);
    let first = all.len().saturating_sub(lines).max(cut);
    Ok(all.get(first..).unwrap_or_default().join("\n"))
}

/// The time in UTC, as in RFC 3339.
fn now() -> String {
    let seconds = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the day number `day` since 1970, by the Gregorian calendar.
fn date(day: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that a leap day is the last of its year.
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_whole_and_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), "web");
        log.note("started");
        log.take(b"one\ntw");
        log.take(b"o\x1b[2J\nunfinished");
        let text = last(directory.path(), "web", 2).unwrap();
        let lines: Vec<_> = text.lines().map(|line| &line[21..]).collect();
        assert_eq!(lines, ["one", "two?[2J"]);
        assert_eq!(last(directory.path(), "web", 9).unwrap().lines().count(), 3);
        assert_eq!(last(directory.path(), "other", 9).unwrap(), "");
    }

    #[test]
    fn standard_error_may_be_gone_and_terminals_are_safe() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        say_to(&mut writer, "web: \x1b]0;x\x07\nvmms: forged");
        drop(writer);
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(text, "web: ?]0;x??vmms: forged\n");
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        say_to(&mut writer, "nobody hears it");
    }

    #[test]
    fn a_worker_that_talks_without_end_fills_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), "web");
        for _ in 0..4 {
            log.take(&vec![b'x'; 1 << 20]);
            log.take(b"\n");
        }
        let sizes = fs::read_dir(directory.path()).unwrap();
        let sizes: Vec<u64> = sizes
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(
            sizes.iter().all(|size| *size < FILE_MAX + 8192),
            "{sizes:?}"
        );
        let text = last(directory.path(), "web", usize::MAX).unwrap();
        assert!(text.len() <= SHOWN_MAX && text.len() > SHOWN_MAX / 2);
        assert!(text.lines().all(|line| line.len() > LINE_MAX));
    }

    #[test]
    fn a_minute_has_so_many_lines() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), "web");
        log.take("a\n".repeat(5000).as_bytes());
        let text = last(directory.path(), "web", usize::MAX).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX as usize);
        assert!(text.ends_with("left out"), "{}", text.len());
        assert!(!log.note("nor told"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_779), (2026, 11, 22));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }
}
