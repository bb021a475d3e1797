//! Frames behind this process' own addresses (Linux, `Documentation/admin-guide/mm/pagemap.rst`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The frame numbers of `count` pages, one each `stride` bytes from `address` on; 0 for one that is not there.
///
/// # Errors
/// What the kernel says, or `PermissionDenied` when it hides the numbers.
pub fn frames(address: usize, count: u64, stride: u64) -> io::Result<Vec<u64>> {
    let file = File::open("/proc/self/pagemap")?;
    let mut frames = Vec::with_capacity(count as usize);
    for page in 0..count {
        let at = (address as u64 + page * stride) / 4096 * 8;
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, at)?;
        let entry = u64::from_ne_bytes(entry);
        if entry & PRESENT == 0 {
            frames.push(0);
            continue;
        }
        // Without CAP_SYS_ADMIN the number reads as 0.
        if entry & FRAME == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        frames.push(entry & FRAME);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_process_have_frames_of_their_own() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16384).unwrap();
        let mapping = uio::Mapping::new(&file, 0, 16384).unwrap();
        for word in mapping.words() {
            word.store(1, std::sync::atomic::Ordering::Relaxed);
        }
        match frames(mapping.address(), 4, 4096) {
            Ok(mut found) => {
                assert!(found.iter().all(|frame| *frame != 0));
                found.sort_unstable();
                found.dedup();
                assert_eq!(found.len(), 4);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
