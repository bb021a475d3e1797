//! What is on the disk that a test machine boots from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::build::Images;
use crate::disk_image::Entry;

/// The program above the hypervisor, or on the bare machine.
#[derive(Debug, Clone)]
pub enum Guest {
    /// A Linux kernel with its initial file system.
    Linux {
        /// The kernel, an EFI program.
        kernel: PathBuf,
        /// The initial file system.
        initrd: PathBuf,
        /// The kernel's command line.
        command_line: String,
    },
    /// The same, started by GRUB, which is the parent's image.
    LinuxByGrub {
        /// GRUB.
        grub: PathBuf,
        /// The kernel.
        kernel: PathBuf,
        /// The initial file system.
        initrd: PathBuf,
        /// The kernel's command line.
        command_line: String,
    },
    /// Any other EFI program.
    Program {
        /// The program.
        image: PathBuf,
        /// Its load options.
        command_line: String,
    },
}

/// The default of the configuration's `[hypervisor]` section in tests: the log goes to COM2, and a panic stops
/// the machine where it is, so that its record can be read.
pub const HYPERVISOR_SECTION: &str =
    "console = \"com2\"\nlog_level = \"info\"\non_panic = \"halt\"\non_failure = \"firmware\"\n";

/// The configuration file that starts `guest` above the hypervisor.
pub fn configuration(guest: &Guest, hypervisor_section: &str) -> String {
    let (image, command_line, initrd) = match guest {
        Guest::Linux { command_line, .. } => ("verdigris\\vmlinuz", &**command_line, true),
        Guest::LinuxByGrub { .. } => ("debian\\grubx64.efi", "", false),
        Guest::Program { command_line, .. } => ("verdigris\\parent.efi", &**command_line, false),
    };
    let mut text = format!("[parent]\nimage = '\\EFI\\{image}'\ncommand_line = '{command_line}'\n");
    if initrd {
        text.push_str("initrd = '\\EFI\\verdigris\\initrd.img'\n");
    }
    text + "\n[hypervisor]\n" + hypervisor_section
}

/// What `sha256sum hypervisor.elf` prints; the loader checks the image against it.
fn checksum_file(hypervisor: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(hypervisor) {
        text.push_str(&format!("{byte:02x}"));
    }
    text + "  hypervisor.elf\n"
}

/// The files of a disk that boots the hypervisor and then `guest`.
pub fn with_hypervisor(images: &Images, guest: &Guest, configuration: &str) -> Result<Vec<Entry>> {
    let hypervisor = fs::read(&images.hypervisor)?;
    let mut entries = vec![
        Entry::from_file("EFI/BOOT/BOOTX64.EFI", &images.loader)?,
        Entry::new(
            "EFI/verdigris/hypervisor.elf.sha256",
            checksum_file(&hypervisor),
        ),
        Entry::new("EFI/verdigris/hypervisor.elf", hypervisor),
        Entry::new("EFI/verdigris/verdigris.toml", configuration),
    ];
    match guest {
        Guest::Linux { kernel, initrd, .. } => {
            entries.push(Entry::from_file("EFI/verdigris/vmlinuz", kernel)?);
            entries.push(Entry::from_file("EFI/verdigris/initrd.img", initrd)?);
        }
        Guest::LinuxByGrub {
            grub,
            kernel,
            initrd,
            command_line,
        } => entries.extend(grub_entries(grub, kernel, initrd, command_line)?),
        Guest::Program { image, .. } => {
            entries.push(Entry::from_file("EFI/verdigris/parent.efi", image)?);
        }
    }
    Ok(entries)
}

/// Has the firmware start `program` in place of the loader, which it finds as `EFI/verdigris/loader.efi`.
pub fn put_before_loader(program: &Path, images: &Images, entries: &mut Vec<Entry>) -> Result<()> {
    const FIRST: &str = "EFI/BOOT/BOOTX64.EFI";
    entries.retain(|entry| entry.path() != FIRST);
    entries.push(Entry::from_file(FIRST, program)?);
    entries.push(Entry::from_file(
        "EFI/verdigris/loader.efi",
        &images.loader,
    )?);
    Ok(())
}

/// GRUB's files where Debian's installer puts them, and the kernel in the root of the volume.
fn grub_entries(
    grub: &Path,
    kernel: &Path,
    initrd: &Path,
    command_line: &str,
) -> Result<Vec<Entry>> {
    let menu = format!(
        "set timeout=0\nsearch --file --set=root /vmlinuz\n\
         menuentry Debian {{\n  linux /vmlinuz {command_line}\n  initrd /initrd.img\n}}\n"
    );
    Ok(vec![
        Entry::from_file("EFI/debian/grubx64.efi", grub)?,
        Entry::new("EFI/debian/grub.cfg", menu),
        Entry::from_file("vmlinuz", kernel)?,
        Entry::from_file("initrd.img", initrd)?,
    ])
}

/// The files of a disk that boots `guest` without the hypervisor; Linux through the boot menu, which hands it
/// the command line and the initial file system as the loader would.
pub fn bare(guest: &Guest, boot_menu: &Path) -> Result<Vec<Entry>> {
    Ok(match guest {
        Guest::Linux {
            kernel,
            initrd,
            command_line,
        } => vec![
            Entry::from_file("EFI/BOOT/BOOTX64.EFI", boot_menu)?,
            Entry::new("loader/loader.conf", "timeout 0\ndefault debian.conf\n"),
            Entry::new(
                "loader/entries/debian.conf",
                format!(
                    "title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {command_line}\n"
                ),
            ),
            Entry::from_file("vmlinuz", kernel)?,
            Entry::from_file("initrd.img", initrd)?,
        ],
        Guest::LinuxByGrub {
            grub,
            kernel,
            initrd,
            command_line,
        } => {
            let mut entries = grub_entries(grub, kernel, initrd, command_line)?;
            entries.push(Entry::from_file("EFI/BOOT/BOOTX64.EFI", grub)?);
            entries
        }
        Guest::Program { image, .. } => vec![Entry::from_file("EFI/BOOT/BOOTX64.EFI", image)?],
    })
}
