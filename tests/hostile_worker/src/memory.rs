//! What its own memory files and mappings can be made to do.
#![expect(unsafe_code, reason = "system calls that no wrapper has")]

use std::io::Error;
use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate};
use uio::Mapping;

use crate::{Loot, forbidden, tell, text};

const HUGE: u64 = 2 << 20;
/// Linux, `linux/mempolicy.h`: MPOL_MF_STRICT and MPOL_MF_MOVE.
const MOVE_STRICTLY: u32 = 3;

pub fn attack(loot: &Loot) {
    for (name, index) in [
        ("RAM", loot.start.ram_fd),
        ("shared pages", loot.start.pages_fd),
    ] {
        let file = loot.file(index);
        let bytes = fstat(file).map_or(HUGE, |data| data.st_size as u64);
        let what = |how: &str| format!("{name}: {how}");
        let cut = |to: u64| ftruncate(file, to).map_err(text);
        forbidden(&what("cut to nothing"), cut(0));
        forbidden(&what("cut by a page"), cut(bytes - HUGE));
        forbidden(&what("grown"), cut(bytes + HUGE));
        forbidden(
            &what("other seals"),
            fcntl_add_seals(file, SealFlags::WRITE).map_err(text),
        );
        // Mapped first: a mapping of what is no more there is another way to the same frames.
        let mapping = Mapping::lazily(file, 0, bytes as usize).map_err(text);
        if let Ok(mapping) = &mapping {
            move_pages(&what("moved"), mapping);
        }
        punch(&what("holes"), file, bytes);
        if let Ok(mapping) = &mapping {
            remove(&what("removed through the mapping"), mapping);
            move_pages(&what("moved again"), mapping);
            // What is there now belongs to nobody: writing it harms no child but its own.
            for word in mapping.words().iter().step_by(4096) {
                word.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
            }
        }
        tell(&what("mapped"), mapping.map(drop));
    }
}

fn punch(what: &str, file: BorrowedFd<'_>, bytes: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // One in two first, then all of it.
    for offset in (0..bytes).step_by(2 * HUGE as usize) {
        let _ = fallocate(file, flags, offset, HUGE);
    }
    tell(what, fallocate(file, flags, 0, bytes).map_err(text));
}

fn remove(what: &str, mapping: &Mapping) {
    // SAFETY: the mapping is of this process alone, and shows memory that anybody may change.
    let result = unsafe {
        libc::madvise(
            mapping.address() as *mut libc::c_void,
            mapping.bytes(),
            libc::MADV_REMOVE,
        )
    };
    tell(what, outcome(result.into()));
}

/// To another node, of which there is none on the test's machine: what counts is that nothing else happens.
fn move_pages(what: &str, mapping: &Mapping) {
    let nodes: libc::c_ulong = 1;
    // SAFETY: the call reads `nodes` and moves pages of the mapping, which stays where it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.address(),
            mapping.bytes(),
            libc::MPOL_BIND,
            &raw const nodes,
            2_usize,
            MOVE_STRICTLY,
        )
    };
    tell(what, outcome(result));
}

fn outcome(result: libc::c_long) -> Result<(), String> {
    match result {
        0 => Ok(()),
        _ => Err(text(Error::last_os_error())),
    }
}
