//! Image files with changed structures: refused, or used without a panic.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use disk::{Format, IoVector, IoVectorMut, Options, create, open};
use arbitrary::Arbitrary;
use tempfile::TempDir;

use crate::target;

#[derive(Arbitrary, Debug)]
struct Damage {
    format: u8,
    /// Place among the structures, and what is written there.
    changes: Vec<(u32, [u8; 4])>,
    cut: Option<u16>,
    accesses: [u16; 4],
}

const SIZE: u64 = 8 << 20;
const FORMATS: [Format; 3] = [Format::Vhdx, Format::Vhd, Format::Qcow2];

/// Good images with a block of data, made once: folder, and a file for each format.
fn originals() -> &'static (TempDir, [Vec<u8>; 3]) {
    static ORIGINALS: OnceLock<(TempDir, [Vec<u8>; 3])> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        // Flushes of a file that is in memory take no time.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let files = FORMATS.map(|format| {
            let path = folder.path().join("original");
            create(&path, format, SIZE).unwrap();
            let image = open(&path, &options(format)).unwrap();
            image
                .write(1 << 20, IoVector::from(&[7; 4096][..]))
                .unwrap();
            image.flush().unwrap();
            drop(image);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            bytes
        });
        (folder, files)
    })
}

fn options(format: Format) -> Options {
    Options {
        lock_wait: Duration::ZERO,
        ..Options::new(format)
    }
}

target!(|damage: Damage| {
    let (folder, files) = originals();
    let which = usize::from(damage.format % 3);
    let (format, original) = (FORMATS[which], &files[which]);
    let path = folder.path().join("damaged");
    let file = write(&path, original);
    let span = original.len().min(4 << 20) as u64;
    for (at, bytes) in damage.changes.iter().take(16) {
        // Most structures are at the start of a block of 64 KiB.
        let at = u64::from(at >> 12) * 0x1_0000 + u64::from(at & 0xFFF);
        file.write_all_at(bytes, at % span).unwrap();
    }
    if let Some(cut) = damage.cut {
        let bytes = original.len() as u64;
        file.set_len((u64::from(cut) << 8).min(bytes)).unwrap();
    }
    drop(file);
    if let Ok(image) = open(&path, &options(format)) {
        let size = image.size();
        for at in damage.accesses {
            let at = (u64::from(at) << 9) % size.saturating_sub(4096).max(512) / 512 * 512;
            let mut bytes = [0; 4096];
            let _ = image.read(at, IoVectorMut::from(&mut bytes[..]));
            let _ = image.discard(at, 512);
            let _ = image.write(at, IoVector::from(&bytes[..512]));
        }
        let _ = image.flush();
    }
});

/// The file anew, sparse where the original is zero.
fn write(path: &Path, bytes: &[u8]) -> File {
    let _ = std::fs::remove_file(path);
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, number as u64 * 4096).unwrap();
        }
    }
    file
}
