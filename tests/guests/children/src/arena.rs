//! Memory for the children: taken from the firmware in one piece before it loses the processor, and handed out in
//! frames of 4 KiB and chunks of 2 MiB.

use alloc::vec::Vec;

use spin::Mutex;
use uefi::boot::{self, AllocateType, MemoryType};

use machine::insn;

/// Bytes of a frame.
pub const FRAME: u64 = 4096;
/// Bytes of a chunk.
pub const CHUNK: u64 = 2 << 20;

static FRAMES: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static CHUNKS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Takes `chunks` chunks from the firmware, or as many as it has in one piece; says how many.
pub fn obtain(chunks: usize) -> usize {
    let mut wanted = chunks;
    while wanted > 0 {
        let pages = wanted * 512 + 511;
        if let Ok(start) =
            boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages)
        {
            let first = (start.as_ptr() as u64).next_multiple_of(CHUNK);
            let mut list = CHUNKS.lock();
            list.extend((0..wanted as u64).rev().map(|n| first + n * CHUNK));
            return wanted;
        }
        wanted /= 2;
    }
    0
}

/// Address of a chunk full of zeros. Ends the run when there is none.
pub fn chunk() -> u64 {
    let Some(chunk) = CHUNKS.lock().pop() else {
        machine::verdict::bail_out(format_args!("no memory left for children"));
    };
    fill(chunk, CHUNK, 0);
    chunk
}

/// Gives a chunk back.
pub fn free_chunk(chunk: u64) {
    CHUNKS.lock().push(chunk);
}

/// Address of a frame full of zeros. Ends the run when there is none.
pub fn frame() -> u64 {
    let popped = FRAMES.lock().pop();
    let frame = popped.unwrap_or_else(|| {
        let chunk = chunk();
        FRAMES
            .lock()
            .extend((1..512).rev().map(|n| chunk + n * FRAME));
        chunk
    });
    fill(frame, FRAME, 0);
    frame
}

/// `count` frames.
pub fn frames(count: usize) -> Vec<u64> {
    (0..count).map(|_| frame()).collect()
}

/// Gives a frame back.
pub fn free(frame: u64) {
    FRAMES.lock().push(frame);
}

/// Writes `value` to each word of the `len` bytes at `start`.
pub fn fill(start: u64, len: u64, value: u64) {
    insn::fill_phys(start, len / 8, value);
}

/// Whether each word of the frame at `start` is `value`.
pub fn is_filled(start: u64, value: u64) -> bool {
    (0..FRAME)
        .step_by(8)
        .all(|at| insn::read_phys64(start + at) == value)
}
