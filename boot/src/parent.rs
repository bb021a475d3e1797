//! The parent partition's EFI program: found, loaded, given its command line and initial RAM disk, started.
#![allow(unsafe_code)]

use alloc::vec::Vec;

use config::{Parent, Volume as Search};
use uefi::boot::{self, LoadImageSource, OpenProtocolAttributes, OpenProtocolParams};
use uefi::proto::BootPolicy;
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CString16, Status};

use crate::failure::{Failure, firmware};
use crate::initrd;
use crate::say::say;
use crate::volume::{Volume, ucs2};

/// A program that was found but not yet loaded.
pub struct Program<'a> {
    config: &'a Parent,
    volume: Volume,
    initrd: Option<Vec<u8>>,
    command_line: CString16,
}

impl<'a> Program<'a> {
    /// Looks for the program and reads its initial RAM disk.
    pub fn find(config: &'a Parent, own: &Volume) -> Result<Self, Failure> {
        let volumes = match config.volume {
            Search::Loader => alloc::vec![*own],
            Search::Any => Volume::all_from(*own),
        };
        let not_found = |what: &str, path: &str| {
            let place = match config.volume {
                Search::Loader => "the loader's volume",
                Search::Any => "any volume",
            };
            Failure::new(Status::NOT_FOUND, format_args!("{what} {path} not found on {place}"))
        };
        let volume_of = |what, path: &str| {
            volumes.iter().copied().find(|volume| volume.holds(path)).ok_or_else(|| not_found(what, path))
        };
        let volume = volume_of("parent image", &config.image)?;
        let initrd = match config.initrd.as_deref() {
            Some(path) => volume_of("initial RAM disk", path)?.read(path)?,
            None => None,
        };
        Ok(Self { config, volume, initrd, command_line: ucs2(&config.command_line)? })
    }

    /// Starts the program. Returns when it does.
    pub fn start(self) -> Result<(), Failure> {
        if let Some(contents) = self.initrd {
            initrd::offer(contents)?;
        }
        let mut storage = Vec::new();
        let device_path = self.volume.device_path(&self.config.image, &mut storage)?;
        let source = LoadImageSource::FromDevicePath { device_path, boot_policy: BootPolicy::ExactMatch };
        let image = boot::load_image(boot::image_handle(), source).map_err(|error| {
            Failure::new(
                error.status(),
                format_args!("parent image {} cannot be loaded: {}", self.config.image, error.status()),
            )
        })?;
        if !self.config.command_line.is_empty() {
            let params = OpenProtocolParams { handle: image, agent: boot::image_handle(), controller: None };
            // SAFETY: the image was just loaded and not started, so nobody else uses its protocol.
            let mut loaded =
                unsafe { boot::open_protocol::<LoadedImage>(params, OpenProtocolAttributes::GetProtocol) }
                    .map_err(firmware("parent image"))?;
            // SAFETY: the string lives until this function returns, which is after the program did.
            unsafe {
                loaded.set_load_options(self.command_line.as_ptr().cast(), self.command_line.num_bytes() as u32);
            }
        }
        say!("starting {}", self.config.image);
        let result = boot::start_image(image);
        let status = result.err().map_or(Status::SUCCESS, |error| error.status());
        say!("{} returned: {status}", self.config.image);
        if status.is_success() {
            return Ok(());
        }
        Err(Failure::new(status, format_args!("the parent's program ended")))
    }
}
