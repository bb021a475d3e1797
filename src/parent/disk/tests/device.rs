//! A block device, where the machine lends us one.
#![allow(missing_docs, reason = "a test has no users")]

mod tools;

use std::path::Path;
use std::time::Duration;

use disk::{Format, OpenError, Options, open};
use tools::{read, write};

/// Overwrites the device that `VERDIGRIS_TEST_DEVICE` names, of 8 MiB or more; `losetup` makes one.
#[test]
fn a_device_is_a_disk() {
    let Some(path) = std::env::var_os("VERDIGRIS_TEST_DEVICE") else {
        eprintln!("SKIPPED: VERDIGRIS_TEST_DEVICE names no block device to overwrite");
        return;
    };
    let path = Path::new(&path);
    for is_direct in [false, true] {
        let options = Options {
            lock_wait: Duration::ZERO,
            is_direct,
            ..Options::new(Format::Raw)
        };
        let image = open(path, &options).unwrap();
        let traits = image.traits();
        println!("{} bytes, {traits:?}", image.size());
        assert!(matches!(open(path, &options), Err(OpenError::Locked(_))));
        let block = u64::from(traits.logical_block);
        let bytes: Vec<u8> = (0..64 * block).map(|at| (at / 8) as u8).collect();
        write(&*image, block, &bytes);
        image.flush().unwrap();
        assert!(read(&*image, block, bytes.len()) == bytes);
        image.write_zeroes(2 * block, block).unwrap();
        assert!(
            read(&*image, 2 * block, block as usize)
                .iter()
                .all(|byte| *byte == 0)
        );
        let last = image.size() - block;
        write(&*image, last, &bytes[..block as usize]);
        assert!(read(&*image, last, block as usize) == bytes[..block as usize]);
        if traits.discard.is_some() {
            image.discard(block, 32 * block).unwrap();
            let back = read(&*image, block, bytes.len());
            let cut = 32 * block as usize;
            assert!(back[..cut].iter().all(|byte| *byte == 0) && back[cut..] == bytes[cut..]);
        }
        assert!(image.resize(4096).is_err());
        assert_eq!(image.refresh().unwrap(), image.size());
    }
}
