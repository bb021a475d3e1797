//! The files of a child, opened with the daemon's rights and named by the fields they come from.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::description::{Description, Disk};
use crate::images::{Image, Images};

/// `O_EXCL`, which without `O_CREAT` keeps others from a block device, or them from us (Linux, open(2)).
const EXCLUSIVE: i32 = rustix::fs::OFlags::EXCL.bits() as i32;

/// `O_NONBLOCK`, which means nothing to a file.
const AT_ONCE: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Bytes of the smallest disk.
const SECTOR: u64 = 512;

/// All of them.
#[derive(Debug)]
pub struct Files {
    /// The kernel.
    pub kernel: OwnedFd,
    /// The initial RAM disk.
    pub initrd: Option<OwnedFd>,
    /// The disks, in the order of the description.
    pub disks: Vec<OwnedFd>,
}

/// Opens them, and notes in `images` which the child uses, until [`Images::release`].
///
/// # Errors
/// The field, what is wrong with it, and what helps. Nothing is noted.
pub fn open(description: &Description, images: &Images) -> Result<Files, String> {
    let opened = open_all(description, images);
    if opened.is_err() {
        images.release(&description.name);
    }
    opened
}

/// Notes which images a child uses that a daemon before this one started.
pub fn note(description: &Description, images: &Images) {
    for disk in &description.disks {
        if let Ok(data) = std::fs::metadata(&disk.path) {
            let _ = images.claim(&description.name, Image::of(&data), !disk.read_only);
        }
    }
}

fn open_all(description: &Description, images: &Images) -> Result<Files, String> {
    let kernel = regular("kernel", &description.kernel)?;
    let initrd = match &description.initrd {
        Some(path) => Some(regular("initrd", path)?),
        None => None,
    };
    let disks = description.disks.iter().enumerate();
    let disks = disks.map(|(index, file)| {
        let field = format!("disk {index}: path");
        let (opened, image) = disk(&field, file)?;
        let claimed = images.claim(&description.name, image, !file.read_only);
        claimed.map_err(|other| {
            let path = &file.path;
            format!(
                "{field} = {path:?}: the child {other} has it; give each its own, or set read_only = true for all"
            )
        })?;
        Ok(opened)
    });
    Ok(Files {
        kernel,
        initrd,
        disks: disks.collect::<Result<_, String>>()?,
    })
}

fn regular(field: &str, path: &Path) -> Result<OwnedFd, String> {
    // A pipe without a writer would keep us waiting for ever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(AT_ONCE)
        .open(path);
    let file = opened.map_err(|error| told(field, path, &error))?;
    let data = file.metadata().map_err(|error| told(field, path, &error))?;
    if !data.is_file() || data.len() == 0 {
        let what = if data.is_file() { "empty" } else { "no file" };
        return Err(format!(
            "{field} = {path:?}: it is {what}; give the path of one from a Debian package or of your own"
        ));
    }
    Ok(file.into())
}

fn disk(field: &str, disk: &Disk) -> Result<(OwnedFd, Image), String> {
    let path = &disk.path;
    let data = std::fs::metadata(path).map_err(|error| told(field, path, &error))?;
    let kind = data.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(format!(
            "{field} = {path:?}: it is neither a file nor a block device; give one of these"
        ));
    }
    if kind.is_file() && data.len() < SECTOR {
        return Err(format!(
            "{field} = {path:?}: it has {} bytes, too few for a disk; `truncate -s 8G` makes a disk of it, if there is \
             nothing in it",
            data.len()
        ));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(!disk.read_only);
    if kind.is_block_device() && !disk.read_only {
        options.custom_flags(EXCLUSIVE);
    }
    let file = options
        .open(path)
        .map_err(|error| told(field, path, &error))?;
    let data = file.metadata().map_err(|error| told(field, path, &error))?;
    Ok((file.into(), Image::of(&data)))
}

fn told(field: &str, path: &Path, error: &io::Error) -> String {
    let cure = match error.kind() {
        ErrorKind::NotFound => "correct the path, or make the file",
        ErrorKind::PermissionDenied => "run vmms as root",
        ErrorKind::ReadOnlyFilesystem => "set read_only = true, or move the file",
        ErrorKind::ResourceBusy => "unmount the device, or stop the child that has it",
        _ => "look at the file",
    };
    format!("{field} = {path:?}: {error}; {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_cure() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("vmlinuz");
        let images = Images::default();
        let open = |child: &Description| super::open(child, &images);
        let describe = |more: &str| {
            let text = format!(
                "name = \"web\"\nmemory = \"2M\"\nkernel = {:?}\n{more}",
                kernel.display().to_string()
            );
            Description::parse(&text).unwrap()
        };
        let error = open(&describe("")).unwrap_err();
        assert!(
            error.contains("kernel = ") && error.contains("correct the path"),
            "{error}"
        );
        std::fs::write(&kernel, "").unwrap();
        assert!(open(&describe("")).unwrap_err().contains("it is empty"));
        std::fs::write(&kernel, "MZ").unwrap();
        let error = open(&describe("initrd = \"/tmp\"")).unwrap_err();
        assert!(
            error.contains("initrd") && error.contains("no file"),
            "{error}"
        );
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = open(&describe(&format!("initrd = {pipe:?}"))).unwrap_err();
        assert!(error.contains("no file"), "{error}");
        let error = open(&describe("[[disk]]\npath = \"/dev/null\"")).unwrap_err();
        assert!(
            error.contains("disk 0: path") && error.contains("block device"),
            "{error}"
        );
        let text = format!("[[disk]]\npath = {:?}\n", kernel.display().to_string());
        let error = open(&describe(&text)).unwrap_err();
        assert!(error.contains("2 bytes, too few"), "{error}");
        std::fs::write(&kernel, [0; 512]).unwrap();
        assert_eq!(open(&describe(&text)).unwrap().disks.len(), 1);
        let error = open(&describe(&text)).unwrap_err();
        assert!(error.contains("child web has it"), "{error}");
        // The refusal forgot the child's own use as well.
        let twice = format!("{text}{text}");
        assert!(
            open(&describe(&twice))
                .unwrap_err()
                .contains("disk 1: path")
        );
    }
}
