//! An EFI program that switches AMD-V off and locks it on the boot processor, as a firmware does where its set-up says
//! so, and then starts the loader, which lies beside it as `\EFI\verdigris\loader.efi`.
//!
//! There is no such program for VT-x: Bochs' firmware locks the register of that itself, with VT-x on.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::asm;

use alloc::vec::Vec;
use uefi::boot::{self, LoadImageSource};
use uefi::proto::BootPolicy;
use uefi::proto::device_path::DevicePath;
use uefi::proto::device_path::build::{self, DevicePathBuilder};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Status, cstr16, println};
use x86::msr::AMD_VM_CR;

/// SVMDIS and LOCK of VM_CR: SVM stays off until the next reset (AMD APM vol. 2, "Enabling SVM").
const DISABLE_AND_LOCK: u32 = 1 << 4 | 1 << 3;

#[uefi::entry]
fn main() -> Status {
    lock();
    match start_loader() {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            println!("locker: the loader could not be started, or returned: {error}");
            error.status()
        }
    }
}

#[allow(unsafe_code)]
fn lock() {
    // SAFETY: the register exists wherever SVM does, which is the machine that this is for.
    unsafe {
        asm!("wrmsr", in("ecx") AMD_VM_CR, in("eax") DISABLE_AND_LOCK, in("edx") 0, options(nomem, nostack));
    }
    println!("locker: SVM is switched off and locked");
}

fn start_loader() -> uefi::Result {
    let device = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle())?
        .device()
        .ok_or(Status::NOT_FOUND)?;
    let mut storage = Vec::new();
    let path = {
        let volume = boot::open_protocol_exclusive::<DevicePath>(device)?;
        let mut builder = DevicePathBuilder::with_vec(&mut storage);
        for node in volume.node_iter() {
            builder = builder.push(&node).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        builder
            .push(&build::media::FilePath {
                path_name: cstr16!("\\EFI\\verdigris\\loader.efi"),
            })
            .and_then(DevicePathBuilder::finalize)
            .map_err(|_| Status::OUT_OF_RESOURCES)?
    };
    let source = LoadImageSource::FromDevicePath {
        device_path: path,
        boot_policy: BootPolicy::ExactMatch,
    };
    let loader = boot::load_image(boot::image_handle(), source)?;
    boot::start_image(loader)
}
