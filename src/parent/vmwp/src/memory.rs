//! The child's RAM in this process.
#![expect(unsafe_code, reason = "a mapping is shown as regions of guest memory")]

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::mm::{MapFlags, ProtFlags};
use uio::Mapping;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Maps the child's RAM of `bytes` from its file, where `child_layout` says. The file may be closed afterwards: nobody can
/// make holes in it or cut it through the mapping. It stays mapped to the end of the process.
///
/// # Errors
/// A size that cannot be, or a lack of address space.
pub fn map(file: impl AsFd, bytes: u64) -> Result<GuestMemoryMmap> {
    let layout = child_layout::layout(bytes)?;
    let size = usize::try_from(bytes).context("RAM of this size")?;
    let mapping = Mapping::lazily(file, 0, size).context("mapping the child's RAM")?;
    // Regions of it are held by rings and requests on any thread, to the end.
    let mapping: &'static Mapping = Box::leak(Box::new(mapping));
    let base = mapping.words().as_ptr().cast::<u8>().cast_mut();
    let mut regions = Vec::new();
    for region in layout {
        let (offset, len) = (region.offset as usize, region.bytes as usize);
        if offset.checked_add(len).is_none_or(|end| end > size) {
            bail!("a region outside of the RAM");
        }
        // SAFETY: the region lies within the mapping, as was checked.
        let start = unsafe { base.add(offset) };
        // SAFETY: the mapping is never unmapped, and nobody in this process has it as plain references: all accesses are
        // volatile or atomic, in this crate family through `vm-memory` alone.
        let mapped = unsafe {
            MmapRegionBuilder::new(len)
                .with_mmap_prot((ProtFlags::READ | ProtFlags::WRITE).bits() as i32)
                .with_mmap_flags(MapFlags::SHARED.bits() as i32)
                .with_raw_mmap_pointer(start)
        }
        .build()
        .context("showing the child's RAM")?;
        let region = GuestRegionMmap::new(mapped, GuestAddress(region.gpa.get()))
            .context("a region at the end of all addresses")?;
        regions.push(region);
    }
    Ok(GuestMemoryMmap::from_regions(regions)?)
}
