//! Disk images that a firmware boots: a GPT with one EFI system partition, as on a USB stick.

use std::fs::{self, File, OpenOptions};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use gpt::disk::LogicalBlockSize;

const SECTOR: u64 = 512;
const MIB: u64 = 1024 * 1024;
/// Smaller than this, a FAT32 has too few clusters for some firmware.
const PARTITION_MIN: u64 = 64 * MIB;
/// The partition starts here; the second GPT needs less than this at the end.
const MARGIN: u64 = MIB;

/// A file of the image: its path with `/` between the parts, and its content.
pub struct Entry {
    path: String,
    content: Vec<u8>,
}

impl Entry {
    /// A file with this content.
    pub fn new(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            content: content.into(),
        }
    }

    /// Its path in the image.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its content, to be changed.
    pub fn content_mut(&mut self) -> &mut Vec<u8> {
        &mut self.content
    }

    /// A copy of a file of this machine.
    pub fn from_file(path: &str, source: &Path) -> Result<Self> {
        let content = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
        Ok(Self::new(path, content))
    }
}

/// Writes an image with `entries` to `image`, which is replaced.
pub fn write(image: &Path, entries: &[Entry]) -> Result<()> {
    write_with_root(image, entries, None)
}

/// The same with a second partition, which holds the file system in `root`.
pub fn write_with_root(image: &Path, entries: &[Entry], root: Option<&Path>) -> Result<()> {
    let mut root = root
        .map(|path| File::open(path).with_context(|| format!("reading {}", path.display())))
        .transpose()?;
    let root_len = match &root {
        Some(file) => file.metadata()?.len().next_multiple_of(MIB),
        None => 0,
    };
    let content: usize = entries.iter().map(|entry| entry.content.len()).sum();
    let wanted = content as u64 + content as u64 / 16 + 4 * MIB;
    let partition = wanted.next_multiple_of(MIB).max(PARTITION_MIN);

    let _ = fs::remove_file(image);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(image)
        .with_context(|| format!("creating {}", image.display()))?;
    file.set_len(partition + root_len + 2 * MARGIN)?;
    partition_table(&mut file, partition, root_len)?;
    let system = file_system(partition, entries)?;
    write_sparsely(&mut file, MARGIN, Cursor::new(system))?;
    match &mut root {
        Some(root) => write_sparsely(&mut file, MARGIN + partition, root),
        None => Ok(()),
    }
}

fn partition_table(file: &mut File, partition: u64, root: u64) -> Result<()> {
    let blocks = (partition + root + 2 * MARGIN) / SECTOR;
    let protective =
        gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(blocks - 1).unwrap_or(u32::MAX));
    protective.overwrite_lba0(file)?;
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(&mut *file, None)?;
    disk.add_partition(
        "verdigris",
        partition,
        gpt::partition_types::EFI,
        0,
        Some(MARGIN / SECTOR),
    )?;
    if root > 0 {
        let start = (MARGIN + partition) / SECTOR;
        let kind = gpt::partition_types::LINUX_FS;
        disk.add_partition_at("debian", 2, start, root / SECTOR, kind, 0)?;
    }
    disk.write()?;
    Ok(())
}

fn file_system(size: u64, entries: &[Entry]) -> Result<Vec<u8>> {
    let mut memory = Cursor::new(vec![0u8; usize::try_from(size)?]);
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_cluster(SECTOR as u32)
        .volume_label(*b"VERDIGRIS  ");
    fatfs::format_volume(&mut memory, options)?;
    {
        let system = fatfs::FileSystem::new(&mut memory, fatfs::FsOptions::new())?;
        let root = system.root_dir();
        for entry in entries {
            let mut path = String::new();
            let mut parts: Vec<&str> = entry
                .path
                .split('/')
                .filter(|part| !part.is_empty())
                .collect();
            let name = parts.pop().context("a file has a name")?;
            for part in parts {
                path.push_str(part);
                root.create_dir(&path)?;
                path.push('/');
            }
            path.push_str(name);
            root.create_file(&path)?
                .write_all(&entry.content)
                .with_context(|| format!("writing {path} into the image"))?;
        }
    }
    Ok(memory.into_inner())
}

/// Leaves out what is zero, so that the image takes little room.
fn write_sparsely(file: &mut File, offset: u64, mut content: impl Read) -> Result<()> {
    const CHUNK: u64 = 64 * 1024;
    let mut chunk = Vec::new();
    let mut place = offset;
    loop {
        chunk.clear();
        let length = content.by_ref().take(CHUNK).read_to_end(&mut chunk)? as u64;
        if length == 0 {
            return Ok(());
        }
        if chunk.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(place))?;
            file.write_all(&chunk)?;
        }
        place += length;
    }
}

#[cfg(test)]
/// Reads one file back out of an image that [`write`] made.
pub fn read(image: &Path, path: &str) -> Result<Vec<u8>> {
    let mut whole = fs::read(image)?;
    let partition = whole.split_off(usize::try_from(MARGIN)?);
    let system = fatfs::FileSystem::new(Cursor::new(partition), fatfs::FsOptions::new())?;
    let mut content = Vec::new();
    system
        .root_dir()
        .open_file(path)
        .with_context(|| format!("opening {path} in {}", image.display()))?
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let large: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let entries = [
            Entry::new("EFI/BOOT/BOOTX64.EFI", large.clone()),
            Entry::new("EFI/verdigris/a-long-name.toml", "x = 1\n"),
        ];
        write(&image, &entries).unwrap();
        assert_eq!(read(&image, "EFI/BOOT/BOOTX64.EFI").unwrap(), large);
        assert_eq!(
            read(&image, "EFI/verdigris/a-long-name.toml").unwrap(),
            b"x = 1\n"
        );
    }

    #[test]
    fn the_partition_table_names_an_efi_system_partition() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        write(&image, &[]).unwrap();
        let disk = gpt::GptConfig::new().open(&image).unwrap();
        let partition = disk.partitions().values().next().unwrap();
        assert_eq!(partition.part_type_guid, gpt::partition_types::EFI);
        assert_eq!(
            partition.bytes_start(LogicalBlockSize::Lb512).unwrap(),
            MARGIN
        );
    }
}
