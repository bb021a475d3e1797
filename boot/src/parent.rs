//! The parent partition's EFI program: found and loaded before the launch, started after it.
#![expect(unsafe_code, reason = "sets load options in the firmware's structure")]

use alloc::vec::Vec;

use config::{Parent, Volume as Search};
use uefi::boot::{self, LoadImageSource, OpenProtocolAttributes, OpenProtocolParams};
use uefi::proto::BootPolicy;
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CString16, Handle, Status};

use crate::failure::{Failure, firmware};
use crate::initrd::InitialRamDisk;
use crate::say::say;
use crate::volume::{Volume, ucs2};

/// A program that the firmware accepted and that was not started. Dropping it unloads it.
pub struct Program<'a> {
    config: &'a Parent,
    image: Handle,
    initrd: Option<Vec<u8>>,
    command_line: CString16,
}

impl<'a> Program<'a> {
    /// Finds and loads the program and reads its initial RAM disk.
    pub fn load(config: &'a Parent, own: &Volume) -> Result<Self, Failure> {
        let volume = find("parent image", &config.image, config.volume, own)?;
        let initrd = match config.initrd.as_deref() {
            Some(path) => find("initial RAM disk", path, config.volume, own)?.read(path)?,
            None => None,
        };
        let command_line = ucs2(&config.command_line)?;
        let mut storage = Vec::new();
        let device_path = volume.device_path(&config.image, &mut storage)?;
        let source = LoadImageSource::FromDevicePath {
            device_path,
            boot_policy: BootPolicy::ExactMatch,
        };
        let image = boot::load_image(boot::image_handle(), source).map_err(|error| {
            let why = match error.status() {
                Status::UNSUPPORTED | Status::LOAD_ERROR => {
                    "it is no EFI program for this machine, or it is damaged"
                }
                Status::SECURITY_VIOLATION | Status::ACCESS_DENIED => {
                    "secure boot refuses its signature"
                }
                _ => "the firmware refuses it",
            };
            let (path, status) = (&config.image, error.status());
            Failure::new(
                status,
                format_args!("parent image {path} cannot be loaded: {why} ({status})"),
            )
        })?;
        Ok(Self {
            config,
            image,
            initrd,
            command_line,
        })
    }

    /// Starts the program. Returns when it does.
    pub fn start(mut self) -> Result<(), Failure> {
        let initrd = self.initrd.take().map(InitialRamDisk::offer).transpose()?;
        if !self.config.command_line.is_empty() {
            let params = OpenProtocolParams {
                handle: self.image,
                agent: boot::image_handle(),
                controller: None,
            };
            // SAFETY: the image was loaded by us and not started, so nobody else uses its protocol.
            let mut loaded = unsafe {
                boot::open_protocol::<LoadedImage>(params, OpenProtocolAttributes::GetProtocol)
            }
            .map_err(firmware("parent image"))?;
            // SAFETY: the string lives until this function returns, which is after the program did.
            unsafe {
                loaded.set_load_options(
                    self.command_line.as_ptr().cast(),
                    self.command_line.num_bytes() as u32,
                );
            }
        }
        say!("starting {}", self.config.image);
        let result = boot::start_image(self.image);
        drop(initrd);
        let status = result.err().map_or(Status::SUCCESS, |error| error.status());
        if status.is_success() {
            say!("{} returned", self.config.image);
            return Ok(());
        }
        Err(Failure::new(
            status,
            format_args!("{} returned: {status}", self.config.image),
        ))
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // A program that ran and returned is unloaded already; the firmware tells the two apart.
        let _ = boot::unload_image(self.image);
    }
}

/// The first volume that holds `path`; `what` names the file in the line that says that there is none.
fn find(what: &str, path: &str, search: Search, own: &Volume) -> Result<Volume, Failure> {
    let (volumes, place) = match search {
        Search::Loader => (alloc::vec![*own], "the loader's volume"),
        Search::Any => (Volume::all_from(*own), "any volume"),
    };
    volumes
        .into_iter()
        .find(|volume| volume.holds(path))
        .ok_or_else(|| {
            Failure::new(
                Status::NOT_FOUND,
                format_args!("{what} {path} not found on {place}"),
            )
        })
}
