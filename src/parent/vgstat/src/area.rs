//! The diagnostics area through `/dev/mem`.
#![expect(
    unsafe_code,
    reason = "maps physical memory and reads it while another writes"
)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::place::Place;

const MEMORY: &str = "/dev/mem";

/// The area, mapped; or the file that it can be read from.
pub struct Area {
    place: Place,
    file: File,
    mapped: Option<NonNull<u64>>,
}

impl Area {
    /// Opens the area at `place`. It is mapped where the kernel allows that, and read by copies elsewhere: Linux
    /// refuses to copy what lies above the last of its own memory, and to map what it restricts.
    pub fn open(place: &Place) -> Result<Self> {
        let file = File::open(MEMORY).map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("{MEMORY} does not exist: the kernel was built without it, or /dev is not mounted"),
            ErrorKind::PermissionDenied => anyhow!("no permission to read {MEMORY}: run it as root, on a kernel that is not locked down"),
            _ => anyhow!("opening {MEMORY}: {error}"),
        })?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                place.len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                place.base,
            )
        };
        Ok(Self {
            place: *place,
            file,
            mapped: mapped.ok().and_then(|base| NonNull::new(base.cast())),
        })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.place.len
    }

    /// Copies `len` bytes at `offset`; each aligned word of 8 bytes is read at once where the area is mapped.
    pub fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.place.len);
        let end = end.with_context(|| format!("{len} bytes at {offset} are not in the area"))?;
        let Some(base) = self.mapped else {
            let mut bytes = vec![0; len];
            self.file
                .read_exact_at(&mut bytes, self.place.base + offset as u64)
                .with_context(|| {
                    format!("{MEMORY} gives nothing at {:#x}: the kernel is locked down, or restricts it", self.place.base)
                })?;
            return Ok(bytes);
        };
        ensure!(
            end <= self.place.len / 8 * 8,
            "the area's length is not a multiple of 8"
        );
        let (first, last) = (offset / 8, end.div_ceil(8));
        let mut bytes = Vec::with_capacity((last - first) * 8);
        for index in first..last {
            // SAFETY: the word lies in the mapping, which is aligned.
            let word = unsafe { base.add(index) };
            // SAFETY: as above; the hypervisor writes there, so the read is volatile.
            bytes.extend(unsafe { word.read_volatile() }.to_le_bytes());
        }
        bytes.drain(..offset % 8);
        bytes.truncate(len);
        Ok(bytes)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if let Some(base) = self.mapped {
            // SAFETY: the mapping is ours, and ends with the only owner of its address.
            let _ = unsafe { munmap(base.as_ptr().cast(), self.place.len) };
        }
    }
}
