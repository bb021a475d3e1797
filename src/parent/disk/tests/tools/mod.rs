//! QEMU's image tools, where the machine has them.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{Image, IoVector, IoVectorMut};

/// `qemu-img`: from `VERDIGRIS_QEMU_IMG`, the path, or what `cargo xtask setup` put aside. Without it the caller's
/// test is skipped, and says so.
pub fn qemu_img() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("VERDIGRIS_QEMU_IMG")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path).map(|folder| folder.join("qemu-img")));
    if let Some(home) = std::env::var_os("HOME") {
        let cache = Path::new(&home).join(".cache/verdigris");
        if let Ok(entries) = cache.read_dir() {
            places.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path().join("usr/bin/qemu-img")),
            );
        }
    }
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no qemu-img on this machine (install qemu-utils, or set VERDIGRIS_QEMU_IMG)"
        );
    }
    found
}

/// How the tool is started: one that was put aside with its libraries has its own loader.
fn command(tool: &Path) -> Command {
    let tree = tool.ancestors().nth(3).unwrap_or(tool);
    let loader = tree.join("lib64/ld-linux-x86-64.so.2");
    if tree == Path::new("/") || !loader.is_file() {
        return Command::new(tool);
    }
    let mut command = Command::new(loader);
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    command.arg("--library-path").arg(libraries).arg(tool);
    command
}

/// Runs the tool: whether it was content, and what it said.
pub fn run(tool: &Path, words: &[&str]) -> (bool, String) {
    let output = command(tool).args(words).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[track_caller]
pub fn must(tool: &Path, words: &[&str]) {
    let (is_good, text) = run(tool, words);
    assert!(is_good, "qemu-img {words:?}: {text}");
}

pub fn write(image: &dyn Image, at: u64, bytes: &[u8]) {
    image.write(at, IoVector::from(bytes)).unwrap();
}

pub fn read(image: &dyn Image, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    image.read(at, IoVectorMut::from(&mut bytes)).unwrap();
    bytes
}

/// What a disk should hold, beside the image that should hold it.
pub struct Model {
    pub bytes: Vec<u8>,
    seed: u64,
}

impl Model {
    pub fn new(size: u64, seed: u64) -> Self {
        Self {
            bytes: vec![0; size as usize],
            seed,
        }
    }

    /// The next number of a simple generator (the constants are Knuth's for MMIX).
    pub fn next(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    /// One random request, on the image and here.
    pub fn step(&mut self, image: &dyn Image) {
        let blocks = self.bytes.len() as u64 / 512;
        let count = 1 + self.next() % 300.min(blocks);
        let block = self.next() % (blocks - count + 1);
        let (at, len) = (block * 512, (count * 512) as usize);
        let range = at as usize..at as usize + len;
        match self.next() % 8 {
            0..=3 => {
                let byte = self.next() as u8;
                let bytes: Vec<u8> = (0..len)
                    .map(|n| byte.wrapping_add((n / 512) as u8))
                    .collect();
                write(image, at, &bytes);
                self.bytes[range].copy_from_slice(&bytes);
            }
            4 if image.traits().discard.is_some() => {
                image.discard(at, len as u64).unwrap();
                self.bytes[range].fill(0);
            }
            5 => {
                image
                    .write_zeroes(at, len as u64)
                    .unwrap_or_else(|error| panic!("{at:#x} + {len:#x}: {error}"));
                self.bytes[range].fill(0);
            }
            6 => image.flush().unwrap(),
            _ => assert!(read(image, at, len) == self.bytes[range], "at {at:#x}"),
        }
    }

    pub fn check(&self, image: &dyn Image) {
        for (index, part) in self.bytes.chunks(1 << 20).enumerate() {
            let at = (index << 20) as u64;
            assert!(
                read(image, at, part.len()) == part,
                "within 1 MiB from {at:#x}"
            );
        }
    }
}
