//! `cargo xtask size`: how large the hypervisor is, as a file and in memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runner::files::RunFiles;
use runner::machine::{Machine, Model};
use runner::session::{self, Limits};

use crate::boot_disk::{self, HYPERVISOR_SECTION};
use crate::build::{self, Images};
use crate::setup::debian::Flavour;
use crate::setup::emulators;
use crate::workspace::Workspace;
use crate::{disk_image, guest};

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

/// The hypervisor logs what it took for what in lines with this, and this is in the last of them.
const MEMORY_LINE: &str = "memory: ";
const LAST_MEMORY_LINE: &str = "memory: diagnostics";

/// Builds the hypervisor and prints its sizes, then boots it once and prints what memory it took at launch. An
/// image over the limit is an error.
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
    let machine = "qemu-svm, 2 processors, 2048 MiB";
    println!("at launch on {machine}:");
    for line in memory_at_launch(&workspace, &images)? {
        println!("hypervisor: {line}");
    }
    Ok(())
}

/// The lines of the hypervisor's log about its memory, without time stamps.
fn memory_at_launch(workspace: &Workspace, images: &Images) -> Result<Vec<String>> {
    let guest = guest::debian(workspace, Flavour::Cloud, guest::Extras::default(), "")?;
    let configuration = boot_disk::configuration(&guest, HYPERVISOR_SECTION);
    let files = RunFiles::prepare(&workspace.target().join("run/size"))?;
    let disk = files.directory().join("disk.img");
    disk_image::write(
        &disk,
        &boot_disk::with_hypervisor(images, &guest, &configuration)?,
    )?;
    let mut machine = Machine::new(Model::QemuSvm, disk);
    machine.processors = 2;
    let limits = Limits {
        timeout: Duration::from_secs(120),
        stop_lines: vec![LAST_MEMORY_LINE.to_owned()],
        grace: session::GRACE,
    };
    let outcome = session::run(&emulators::obtain()?, &machine, &files, &limits)?;
    let lines: Vec<String> = outcome
        .hypervisor
        .lines()
        .filter_map(|line| Some(line.split_once(MEMORY_LINE)?.1.trim_end().to_owned()))
        .collect();
    ensure!(
        !lines.is_empty(),
        "the hypervisor did not come up: see {}",
        files.hypervisor_log().display()
    );
    Ok(lines)
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
