//! Files with wrong bytes in them: refused, or used without a panic.
#![allow(missing_docs, reason = "a test has no users")]

mod tools;

use std::os::unix::fs::FileExt;

use disk::{Format, IoVector, IoVectorMut, Options, create, open};
use proptest::prelude::*;

const SIZE: u64 = 8 << 20;

/// Where the tables of a format are, as (start, bytes).
fn tables(format: Format) -> &'static [(u64, u64)] {
    match format {
        Format::Vhdx => &[
            (0, 16),
            (64 << 10, 80),
            (128 << 10, 80),
            (192 << 10, 90),
            (256 << 10, 90),
            (1 << 20, 8192),
            (2 << 20, 256),
            ((2 << 20) + (64 << 10), 80),
            (3 << 20, 64),
        ],
        Format::Vhd => &[(0, 90), (512, 60), (1536, 20)],
        _ => &[
            (0, 112),
            (65536, 16),
            (131_072, 16),
            (196_608, 64),
            (262_144, 64),
        ],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn nothing_panics(
        format in prop::sample::select(vec![Format::Vhdx, Format::Vhd, Format::Qcow2]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        mends_sums: bool,
        cut in prop::option::of(0..5u64 << 20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        create(&path, format, SIZE).unwrap();
        let options = Options::new(format);
        let image = open(&path, &options).unwrap();
        tools::write(&*image, 1 << 20, &[7; 4096]);
        tools::write(&*image, 5 << 20, &[8; 4096]);
        drop(image);
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        for (table, at, byte) in changes {
            let (start, len) = tables(format)[table.index(tables(format).len())];
            file.write_all_at(&[byte], start + at.index(len as usize) as u64).unwrap();
        }
        if mends_sums {
            mend(&file, format);
        }
        if let Some(cut) = cut {
            file.set_len(cut).unwrap();
        }
        if let Ok(image) = open(&path, &options) {
            let size = image.size();
            for at in [0, 1 << 20, 5 << 20, size / 1024 * 512, size.saturating_sub(4096) / 512 * 512] {
                let mut bytes = [0; 4096];
                let _ = image.read(at, IoVectorMut::from(&mut bytes[..]));
                let _ = image.discard(at, 512);
                // A disk of terabytes is no damage: a write then only grows the file by a block.
                let _ = image.write(at, IoVector::from(&bytes[..512]));
            }
            let _ = image.flush();
        }
    }
}

/// Puts right the sums of the headers, so that what is behind them is met.
fn mend(file: &std::fs::File, format: Format) {
    if format == Format::Qcow2 {
        return;
    }
    let (places, at_sum): (&[(u64, usize)], usize) = match format {
        Format::Vhdx => (
            &[
                (64 << 10, 4096),
                (128 << 10, 4096),
                (192 << 10, 65536),
                (256 << 10, 65536),
            ],
            4,
        ),
        _ => (&[(0, 512)], 64),
    };
    for (at, len) in places {
        let mut bytes = vec![0; *len];
        if file.read_exact_at(&mut bytes, *at).is_err() {
            return;
        }
        bytes[at_sum..at_sum + 4].fill(0);
        let sum = if format == Format::Vhdx {
            crc32c(&bytes).to_le_bytes()
        } else {
            (!bytes.iter().fold(0u32, |sum, byte| sum + u32::from(*byte))).to_be_bytes()
        };
        file.write_all_at(&sum, at + at_sum as u64).unwrap();
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                sum >> 1 ^ 0x82F6_3B78
            } else {
                sum >> 1
            }
        })
    })
}
