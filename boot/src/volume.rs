//! File systems that the firmware knows, and files on them.
#![expect(
    unsafe_code,
    reason = "opens protocols without taking them from others"
)]

use alloc::string::String;
use alloc::vec::Vec;

use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::fs::{Error, FileSystem, IoErrorContext};
use uefi::proto::device_path::build::{DevicePathBuilder, media};
use uefi::proto::device_path::{DevicePath, DeviceSubType, DeviceType};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::{CString16, Handle, Status};

use crate::failure::{Failure, firmware};

/// A volume with a file system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Volume(Handle);

impl Volume {
    /// The volume that the loader was started from.
    pub fn of_loader() -> Result<Self, Failure> {
        let image = open::<LoadedImage>(boot::image_handle())
            .map_err(firmware("the loader's own image"))?;
        image.device().map(Self).ok_or_else(|| {
            Failure::new(
                Status::UNSUPPORTED,
                format_args!("the loader was not started from a volume; start it from a disk"),
            )
        })
    }

    /// All volumes, `first` first.
    pub fn all_from(first: Self) -> Vec<Self> {
        let mut volumes = alloc::vec![first];
        let others = boot::find_handles::<SimpleFileSystem>().unwrap_or_default();
        volumes.extend(
            others
                .into_iter()
                .map(Self)
                .filter(|&volume| volume != first),
        );
        volumes
    }

    /// Whether `path` names a file here. A volume that cannot be read holds none.
    pub fn holds(&self, path: &str) -> bool {
        self.read_into(path, |fs, path| {
            fs.metadata(path).map(|info| info.is_regular_file())
        })
        .is_ok_and(|found| found == Some(true))
    }

    /// The contents of the file `path`, or `None` when there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.read_into(path, |fs, path| fs.read(path))
    }

    fn read_into<T>(
        &self,
        path: &str,
        action: impl FnOnce(&mut FileSystem, &uefi::CStr16) -> Result<T, Error>,
    ) -> Result<Option<T>, Failure> {
        let name = ucs2(path)?;
        let protocol = open::<SimpleFileSystem>(self.0).map_err(firmware("file system"))?;
        match action(&mut FileSystem::new(protocol), &name) {
            Ok(value) => Ok(Some(value)),
            Err(Error::Io(error)) if is_absence(&error) => Ok(None),
            Err(Error::Io(error)) => Err(Failure::new(
                error.uefi_error.status(),
                format_args!(
                    "{path} cannot be read: {} ({})",
                    error.context,
                    error.uefi_error.status()
                ),
            )),
            Err(error) => Err(Failure::new(
                Status::LOAD_ERROR,
                format_args!("{path} cannot be read: {error}"),
            )),
        }
    }

    /// The device path of the file `path` on this volume, for `LoadImage`.
    pub fn device_path<'a>(
        &self,
        path: &str,
        storage: &'a mut Vec<u8>,
    ) -> Result<&'a DevicePath, Failure> {
        let fault = |_| {
            Failure::new(
                Status::LOAD_ERROR,
                format_args!("{path}: no device path can be built"),
            )
        };
        let device = open::<DevicePath>(self.0).map_err(firmware("device path of the volume"))?;
        let name = ucs2(path)?;
        let mut builder = DevicePathBuilder::with_vec(storage);
        for node in device.node_iter() {
            if node.full_type() == (DeviceType::END, DeviceSubType::END_ENTIRE) {
                break;
            }
            builder = builder.push(&node).map_err(fault)?;
        }
        builder
            .push(&media::FilePath { path_name: &name })
            .map_err(fault)?
            .finalize()
            .map_err(fault)
    }
}

fn is_absence(error: &uefi::fs::IoError) -> bool {
    error.context == IoErrorContext::NotAFile
        || matches!(
            error.uefi_error.status(),
            Status::NOT_FOUND | Status::NO_MEDIA | Status::MEDIA_CHANGED
        )
}

/// `text` as the firmware's string.
pub fn ucs2(text: &str) -> Result<CString16, Failure> {
    CString16::try_from(text).map_err(|_| {
        Failure::new(
            Status::INVALID_PARAMETER,
            format_args!("{}: not a UCS-2 string", String::from(text)),
        )
    })
}

/// Opens a protocol without taking it from others: volumes and paths are in use by the firmware and by whoever
/// started us.
fn open<P: uefi::proto::ProtocolPointer + ?Sized>(
    handle: Handle,
) -> uefi::Result<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: the interface stays as long as its handle, and no handle used here is removed while the loader
    // runs: nothing disconnects controllers meanwhile.
    unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }
}
