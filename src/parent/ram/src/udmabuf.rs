//! Pins memory files through `/dev/udmabuf` (Linux, `include/uapi/linux/udmabuf.h`).
#![expect(unsafe_code, reason = "an ioctl with a structure of ours")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

const CLOSE_ON_EXEC: u32 = 1;

/// `struct udmabuf_create`.
#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const _: () = assert!(size_of::<Create>() == 24);

// SAFETY: the kernel reads the 24 bytes that the pointer names and no more, and answers a new descriptor.
unsafe impl Ioctl for Create {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<Self>(b'u', 0x42)
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        (self as *mut Self).cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut core::ffi::c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the call succeeded, so `out` is a descriptor that nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(out as RawFd) })
    }
}

/// The dma-buf that keeps the first `bytes` of `file`, which is sealed against shrinking, where they are.
///
/// # Errors
/// `/dev/udmabuf` is not there, or refuses, as it does where the file is not sealed.
pub fn pin(file: BorrowedFd<'_>, bytes: u64) -> io::Result<OwnedFd> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/udmabuf")?;
    let create = Create {
        memfd: u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        flags: CLOSE_ON_EXEC,
        offset: 0,
        size: bytes,
    };
    // SAFETY: the device is the one that knows this request, and `create` is its structure.
    Ok(unsafe { ioctl(&device, create) }?)
}
