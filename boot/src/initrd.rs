//! The initial RAM disk, offered as Linux' EFI stub asks for it: the protocol `EFI_LOAD_FILE2_PROTOCOL` on a
//! handle whose device path is the one vendor node `LINUX_EFI_INITRD_MEDIA_GUID`.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;

use uefi::proto::device_path::build::{DevicePathBuilder, media};
use uefi::{Guid, Identify, Status, boot, guid};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::media::LoadFile2Protocol;

use crate::failure::{Failure, firmware};

const LINUX_INITRD_MEDIA: Guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68");

/// The protocol, and behind it the contents that it serves.
#[repr(C)]
struct Provider {
    protocol: LoadFile2Protocol,
    contents: Vec<u8>,
}

/// Installs the protocol. It stays for as long as boot services live, and so does `contents`.
pub fn offer(contents: Vec<u8>) -> Result<(), Failure> {
    let path: &'static mut Vec<u8> = Box::leak(Box::default());
    let vendor = media::Vendor { vendor_guid: LINUX_INITRD_MEDIA, vendor_defined_data: &[] };
    let path = DevicePathBuilder::with_vec(path)
        .push(&vendor)
        .and_then(DevicePathBuilder::finalize)
        .map_err(|_| Failure::new(Status::LOAD_ERROR, format_args!("initial RAM disk: no device path can be built")))?;
    let provider = Box::leak(Box::new(Provider { protocol: LoadFile2Protocol { load_file }, contents }));

    let install = |handle, guid: &Guid, interface: *const c_void| {
        // SAFETY: the interface lives for ever, being leaked, and is what the GUID names.
        unsafe { boot::install_protocol_interface(handle, guid, interface) }.map_err(firmware("initial RAM disk"))
    };
    let handle = install(None, &DevicePathProtocol::GUID, path.as_ffi_ptr().cast())?;
    let interface: *const Provider = provider;
    install(Some(handle), &uefi::proto::media::load_file::LoadFile2::GUID, interface.cast())?;
    Ok(())
}

/// `EFI_LOAD_FILE2_PROTOCOL.LoadFile` (UEFI, "Load File 2 Protocol").
unsafe extern "efiapi" fn load_file(
    this: *mut LoadFile2Protocol,
    path: *const DevicePathProtocol,
    boot_policy: uefi_raw::Boolean,
    buffer_size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if this.is_null() || path.is_null() || buffer_size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if bool::from(boot_policy) {
        return Status::UNSUPPORTED;
    }
    // SAFETY: `this` is the first field of a leaked `Provider`, which is only read.
    let contents = unsafe { &(*this.cast::<Provider>()).contents };
    // SAFETY: the caller passes a valid size.
    let room = unsafe { buffer_size.read() };
    // SAFETY: as above.
    unsafe { buffer_size.write(contents.len()) };
    if buffer.is_null() || room < contents.len() {
        return Status::BUFFER_TOO_SMALL;
    }
    // SAFETY: the caller's buffer has `room` bytes, which suffice, and is not our own memory.
    unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(contents.as_ptr(), contents.len()) };
    Status::SUCCESS
}
