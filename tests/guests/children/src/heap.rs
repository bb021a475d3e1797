//! A heap of fixed size, since the firmware's is out of reach once the processor is taken from it.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;
use spin::Mutex;
use uefi::boot::{self, AllocateType, MemoryType};

/// Pages of the heap.
const PAGES: usize = 1024;

struct Locked(Mutex<Heap>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new(Heap::empty()));

// SAFETY: the heap hands every byte out once, and the lock makes it one caller at a time.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller passes what `alloc` gave for this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) };
        }
    }
}

/// Takes the heap's memory from the firmware. Nothing may be allocated before.
pub fn obtain() -> bool {
    let Ok(start) = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, PAGES)
    else {
        return false;
    };
    // SAFETY: the firmware gave these pages to this program for good.
    unsafe { HEAP.0.lock().init(start.as_ptr(), PAGES * 4096) };
    true
}
