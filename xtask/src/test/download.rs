//! The file that a test fetches over the network: QEMU serves it by TFTP on a network of its own.

use std::path::Path;

use anyhow::Result;
use sha2::{Digest, Sha256};

const BYTES: usize = 8 << 20;

/// The same bytes each time, and none of them guessable from its neighbours.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..BYTES).map(|_| next()).collect()
}

/// The file's SHA-256 in hexadecimal digits.
pub fn hash() -> String {
    Sha256::digest(content())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Puts the file below `directory`, and returns QEMU's arguments for a card that it can be had over.
pub fn serve(directory: &Path) -> Result<Vec<String>> {
    let files = directory.join("tftp");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("data"), content())?;
    Ok(vec![
        "-netdev".to_owned(),
        format!("user,id=net,restrict=on,tftp={}", files.display()),
        "-device".to_owned(),
        "e1000e,netdev=net".to_owned(),
    ])
}
