//! The initial RAM disk, offered as Linux' EFI stub asks for it: the protocol `EFI_LOAD_FILE2_PROTOCOL` on a
//! handle whose device path is the one vendor node `LINUX_EFI_INITRD_MEDIA_GUID`.
#![expect(unsafe_code, reason = "the firmware calls the protocol that it offers")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;

use uefi::proto::device_path::build::{DevicePathBuilder, media};
use uefi::proto::media::load_file::LoadFile2;
use uefi::{Guid, Handle, Identify, Status, boot, guid};
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

/// The protocol, installed. Dropping it takes it away again.
pub struct InitialRamDisk {
    handle: Handle,
    path: *const c_void,
    provider: *mut Provider,
}

impl InitialRamDisk {
    /// Installs the protocol, with `contents` behind it.
    pub fn offer(contents: Vec<u8>) -> Result<Self, Failure> {
        // The device path is a few bytes, and the firmware may keep references to it: it is never freed.
        let path: &'static mut Vec<u8> = Box::leak(Box::default());
        let vendor = media::Vendor {
            vendor_guid: LINUX_INITRD_MEDIA,
            vendor_defined_data: &[],
        };
        let path: *const c_void = DevicePathBuilder::with_vec(path)
            .push(&vendor)
            .and_then(DevicePathBuilder::finalize)
            .map_err(|_| {
                Failure::new(
                    Status::LOAD_ERROR,
                    format_args!("initial RAM disk: no device path can be built"),
                )
            })?
            .as_ffi_ptr()
            .cast();
        let provider = Box::into_raw(Box::new(Provider {
            protocol: LoadFile2Protocol { load_file },
            contents,
        }));
        let install = |handle, guid: &Guid, interface: *const c_void| {
            // SAFETY: the interface is what the GUID names, and lives until `drop` has uninstalled it.
            unsafe { boot::install_protocol_interface(handle, guid, interface) }
                .map_err(firmware("initial RAM disk"))
        };
        let handle = install(None, &DevicePathProtocol::GUID, path)?;
        let offered = Self {
            handle,
            path,
            provider,
        };
        install(Some(handle), &LoadFile2::GUID, provider.cast_const().cast())?;
        Ok(offered)
    }
}

impl Drop for InitialRamDisk {
    fn drop(&mut self) {
        let uninstall = |guid: &Guid, interface: *const c_void| {
            // SAFETY: installed by `offer` on this handle; whoever loaded the file has returned.
            unsafe { boot::uninstall_protocol_interface(self.handle, guid, interface) }
        };
        let is_gone = uninstall(&LoadFile2::GUID, self.provider.cast_const().cast()).is_ok();
        let _ = uninstall(&DevicePathProtocol::GUID, self.path);
        if is_gone {
            // SAFETY: made by `Box::into_raw` in `offer`, and the firmware does not know it any more.
            drop(unsafe { Box::from_raw(self.provider) });
        }
    }
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
    // SAFETY: `this` is the first field of the `Provider` of an installed protocol, which is only read.
    let contents = unsafe { &(*this.cast::<Provider>()).contents };
    // SAFETY: the caller passes a valid size.
    let room = unsafe { buffer_size.read() };
    // SAFETY: as above.
    unsafe { buffer_size.write(contents.len()) };
    if buffer.is_null() || room < contents.len() {
        return Status::BUFFER_TOO_SMALL;
    }
    // SAFETY: the caller's buffer has `room` bytes, which suffice, and is not our own memory.
    unsafe {
        buffer
            .cast::<u8>()
            .copy_from_nonoverlapping(contents.as_ptr(), contents.len())
    };
    Status::SUCCESS
}
