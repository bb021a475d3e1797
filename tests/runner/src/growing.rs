//! A file that somebody else appends to.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// The lines of a file, each looked at when it is there, and the last one, unfinished, as often as it grows. An emulator's
/// log has millions of lines: reading it from its beginning at every look costs as much as the emulator.
pub(crate) struct Growing {
    path: PathBuf,
    file: Option<File>,
    unfinished: Vec<u8>,
}

impl Growing {
    /// The file at `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            unfinished: Vec::new(),
        }
    }

    /// Shows `look` what has come since the last time, line by line, and whether the line is whole. A file that cannot be
    /// read has no news.
    pub(crate) fn news(&mut self, mut look: impl FnMut(&str, bool)) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return;
        };
        // Who writes the file may have begun it anew.
        let place = file.stream_position().unwrap_or(0);
        if file.metadata().is_ok_and(|about| about.len() < place) {
            let _ = file.seek(SeekFrom::Start(0));
            self.unfinished.clear();
        }
        let before = self.unfinished.len();
        let _ = file.read_to_end(&mut self.unfinished);
        if self.unfinished.len() == before {
            return;
        }
        let mut whole = 0;
        for line in self.unfinished.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n");
            look(
                &String::from_utf8_lossy(text.unwrap_or(line)),
                text.is_some(),
            );
            whole += text.map_or(0, |_| line.len());
        }
        self.unfinished.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(growing: &mut Growing) -> String {
        let mut lines = String::new();
        growing
            .news(|line, is_whole| lines += &format!("{line}{}", if is_whole { '|' } else { '~' }));
        lines
    }

    #[test]
    fn each_line_comes_once_and_an_unfinished_one_as_often_as_it_grows() {
        let path = std::env::temp_dir().join(format!("growing-{}", std::process::id()));
        let mut growing = Growing::new(path.clone());
        assert!(lines(&mut growing).is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines(&mut growing), "one|tw~");
        assert!(lines(&mut growing).is_empty());
        file.write_all(b"o\n").unwrap();
        assert_eq!(lines(&mut growing), "two|");
        file.set_len(0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"new\n").unwrap();
        assert_eq!(lines(&mut growing), "new|");
        std::fs::remove_file(path).unwrap();
    }
}
