//! `cargo xtask size`: how large the hypervisor is.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::workspace::Workspace;

/// What the image may take, code and data together.
const IMAGE_MAX: u64 = 512 * 1024;

/// The sizes of an ELF file's loadable segments, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    code: u64,
    constants: u64,
    data: u64,
    zeroed: u64,
}

/// Builds the hypervisor and prints its sizes; an image over the limit is an error.
pub fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    let images = build::build(&workspace, &build::Options::default())?;
    let sizes = measure(&images.hypervisor)?;
    let image = sizes.code + sizes.constants + sizes.data;
    println!("hypervisor: code      {:>8} bytes", sizes.code);
    println!("hypervisor: constants {:>8} bytes", sizes.constants);
    println!("hypervisor: data      {:>8} bytes", sizes.data);
    println!("hypervisor: image     {image:>8} bytes of {IMAGE_MAX} allowed");
    println!(
        "hypervisor: zeroed    {:>8} bytes more at launch",
        sizes.zeroed
    );
    ensure!(
        image <= IMAGE_MAX,
        "the hypervisor's image is larger than {IMAGE_MAX} bytes"
    );
    Ok(())
}

fn measure(image: &Path) -> Result<Sizes> {
    let elf = std::fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    segments(&elf).with_context(|| format!("{} is not an ELF file", image.display()))
}

/// Adds up the PT_LOAD segments by their permissions (System V ABI, "Program Header").
fn segments(elf: &[u8]) -> Option<Sizes> {
    const LOAD: u64 = 1;
    const EXECUTE: u64 = 1;
    const WRITE: u64 = 2;
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0u64, |value, &byte| value << 8 | u64::from(byte)),
        )
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number(0x20, 8)?).ok()?;
    let size = usize::try_from(number(0x36, 2)?).ok()?;
    let mut sizes = Sizes::default();
    for index in 0..usize::try_from(number(0x38, 2)?).ok()? {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? != LOAD {
            continue;
        }
        let flags = number(header + 4, 4)?;
        let (in_file, in_memory) = (number(header + 0x20, 8)?, number(header + 0x28, 8)?);
        match flags {
            _ if flags & EXECUTE != 0 => sizes.code += in_file,
            _ if flags & WRITE != 0 => sizes.data += in_file,
            _ => sizes.constants += in_file,
        }
        sizes.zeroed += in_memory.saturating_sub(in_file);
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_code_and_data() {
        let sizes = measure(&std::env::current_exe().unwrap()).unwrap();
        assert!(sizes.code > 0 && sizes.constants > 0 && sizes.data > 0);
    }

    #[test]
    fn damaged_files_are_refused() {
        assert_eq!(segments(b""), None);
        assert_eq!(segments(b"\x7fELF\x02\x01"), None);
    }
}
