//! What is wrong with a configuration file, where, and what to write instead.

use alloc::string::String;
use core::fmt;

/// The first fault of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line, from 1; `None` when a key is missing, since that has no place in the file.
    pub line: Option<usize>,
    /// The fault and its cure, in one line.
    pub message: String,
}

impl Error {
    /// A fault that has no line.
    pub(crate) fn without_line(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
        }
    }

    /// The fault that the TOML parser found in `text`, brought to one line.
    pub(crate) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| {
            let before = text.as_bytes().get(..span.start).unwrap_or_default();
            1 + before.iter().filter(|&&byte| byte == b'\n').count()
        });
        let mut message = String::new();
        for part in error.message().lines().filter(|part| !part.is_empty()) {
            if !message.is_empty() {
                message.push_str(", ");
            }
            message.push_str(part);
        }
        Self { line, message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}
