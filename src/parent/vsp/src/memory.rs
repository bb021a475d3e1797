//! Rings in a child's RAM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ring::RingMem;
use ring_proto::Control;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion,
    VolatileMemory,
};

const PAGE: usize = 4096;

/// A page of RAM: where it lies in the mapping of its region.
#[derive(Clone, Debug)]
struct Page {
    region: Arc<MmapRegion>,
    offset: usize,
}

impl Page {
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.region.get_atomic_ref(self.offset + at).ok()
    }

    fn half(&self, at: usize) -> Option<&AtomicU32> {
        self.region.get_atomic_ref(self.offset + at).ok()
    }
}

/// A ring whose control page and data area lie in pages of a child. It keeps their memory mapped.
#[derive(Clone, Debug)]
pub struct GuestRing {
    control: Page,
    data: Vec<Page>,
}

impl GuestRing {
    /// The ring in the pages with these numbers, the control page first. `None` unless all of them are RAM in `memory`, and
    /// there are two at least.
    pub fn new(memory: &GuestMemoryMmap, pages: &[u64]) -> Option<Self> {
        let find = |number: &u64| {
            let start = GuestAddress(number.checked_mul(PAGE as u64)?);
            let region = memory.find_region(start)?;
            let offset = start.0 - region.start_addr().0;
            let fits = offset.checked_add(PAGE as u64)? <= region.len();
            fits.then(|| Page {
                region: region.get_mmap(),
                offset: offset as usize,
            })
        };
        let (control, data) = pages.split_first()?;
        let data: Vec<Page> = data.iter().map(find).collect::<Option<_>>()?;
        (!data.is_empty()).then_some(Self {
            control: find(control)?,
            data,
        })
    }

    fn at(&self, at: u32) -> Option<&AtomicU64> {
        let at = at as usize;
        self.data.get(at / PAGE)?.word(at % PAGE)
    }
}

impl RingMem for GuestRing {
    fn data_bytes(&self) -> u32 {
        u32::try_from(self.data.len() * PAGE).unwrap_or(u32::MAX)
    }
    fn control(&self, field: Control) -> u32 {
        self.control
            .half(field.offset())
            .map_or(0, |word| word.load(Ordering::Acquire))
    }
    fn set_control(&self, field: Control, value: u32) {
        if let Some(word) = self.control.half(field.offset()) {
            word.store(value, Ordering::Release);
        }
    }
    fn word(&self, at: u32) -> u64 {
        self.at(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    fn set_word(&self, at: u32, value: u64) {
        if let Some(word) = self.at(at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn a_ring_lies_in_the_pages_that_were_named_and_nowhere_else() {
        let regions = [
            (GuestAddress(0), 4 * PAGE),
            (GuestAddress(8 * PAGE as u64), 2 * PAGE),
        ];
        let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
        let ring = GuestRing::new(&memory, &[9, 3, 8]).unwrap();
        assert_eq!(ring.data_bytes(), 8192);
        ring.set_control(Control::ReadIndex, 77);
        ring.set_word(4096 + 8, 0x1122);
        ring.set_word(8192, 1);
        assert_eq!(
            memory.read_obj::<u32>(GuestAddress(9 * 4096 + 4)).unwrap(),
            77
        );
        assert_eq!(
            memory.read_obj::<u64>(GuestAddress(8 * 4096 + 8)).unwrap(),
            0x1122
        );
        assert_eq!(ring.word(4096 + 8), 0x1122);
        for bad in [
            &[][..],
            &[1],
            &[1, 4],
            &[10, 1],
            &[u64::MAX, 1],
            &[1, 1 << 52],
        ] {
            assert!(GuestRing::new(&memory, bad).is_none(), "{bad:?}");
        }
    }
}
