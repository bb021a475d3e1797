//! Lines that somebody writes to the daemon, and that a daemon writes to its client.

use vmms_proto::{LINE_MAX, Reply, Request, receive, send};

use crate::target;

target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest.len();
        if let Ok(request) = receive::<Request>(&mut rest) {
            let mut line = Vec::new();
            send(&mut line, &request).unwrap();
            // What was read may be written longer than it was, but not so that nobody reads it.
            if line.len() as u64 <= LINE_MAX {
                assert_eq!(receive::<Request>(&line[..]).ok(), Some(request));
            }
        }
        assert!(rest.len() < before, "a line is never read twice");
    }
    let _ = receive::<Reply>(bytes);
});
