//! One message is one line.

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of the longest line.
pub const LINE_MAX: u64 = 1 << 20;

/// Why no message came.
#[derive(Debug)]
pub enum LineError {
    /// The other side closed the connection.
    Closed,
    /// The line is too long or no message.
    Malformed(String),
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side closed the connection"),
            Self::Malformed(text) => write!(f, "what came is no message: {text}"),
            Self::Io(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl std::error::Error for LineError {}

/// Sends one message.
///
/// # Errors
/// What the connection says.
pub fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Receives one message. What follows it stays in `from`.
///
/// # Errors
/// [`LineError`].
pub fn receive<T: DeserializeOwned>(from: impl BufRead) -> Result<T, LineError> {
    let mut line = Vec::new();
    let read = from.take(LINE_MAX).read_until(b'\n', &mut line);
    match read.map_err(LineError::Io)? {
        0 => return Err(LineError::Closed),
        _ if !line.ends_with(b"\n") => {
            return Err(LineError::Malformed("it has no end".to_owned()));
        }
        _ => {}
    }
    serde_json::from_slice(&line).map_err(|error| LineError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChildInfo, Reply, Request};

    #[test]
    fn messages_are_lines() {
        let mut bytes = Vec::new();
        let request = Request::Stop {
            name: "web".into(),
            seconds: Some(3),
        };
        send(&mut bytes, &request).unwrap();
        send(&mut bytes, &Request::List).unwrap();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "{\"do\":\"stop\",\"name\":\"web\",\"seconds\":3}\n{\"do\":\"list\"}\n"
        );
        let mut from = &*bytes;
        assert_eq!(receive::<Request>(&mut from).unwrap(), request);
        assert_eq!(receive::<Request>(&mut from).unwrap(), Request::List);
        assert!(matches!(
            receive::<Request>(&mut from),
            Err(LineError::Closed)
        ));
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for reply in [
            Reply::Done,
            Reply::Children(vec![ChildInfo::default()]),
            Reply::Text("a\nb".into()),
            Reply::Console,
            Reply::Error("no".into()),
        ] {
            let mut bytes = Vec::new();
            send(&mut bytes, &reply).unwrap();
            assert_eq!(receive::<Reply>(&*bytes).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for line in ["{}\n", "{\"do\":\"dance\"}\n", "{\"do\":\"list\"}"] {
            let error = receive::<Request>(line.as_bytes());
            assert!(matches!(error, Err(LineError::Malformed(_))), "{line}");
        }
    }
}
