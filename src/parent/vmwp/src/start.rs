//! From the daemon's first message to a child that is ready to run.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use addr::PartitionId;
use anyhow::{Context, Result, anyhow};
use disk::Pool;
use platform::{BootState, Devices, Interrupt, Options, load};
use slot_proto::Generation;
use slot_proto::event::AREA_WORDS;
use slot_proto::signal::PAGE_WORDS;
use slots::Watcher;
use storvsp::Config;
use uio::{Channel, Mapping, Words};
use vm_memory::GuestMemoryMmap;
use vsp::{Bus, Scsi, ScsiConfig, SignalChild, Wake};
use worker_link::{Start, pages};

use crate::calls::Child;
use crate::console::{Console, Output};
use crate::disks::{Disks, controller_instance};
use crate::files::Files;
use crate::memory;
use crate::slot::{Signals, Slot};
use crate::wake::Bell;
use crate::worker::{Parts, Raised, ToDaemon, VpPages};

/// Threads that requests to disks run on.
const DISK_THREADS: usize = 8;

/// Maps what is shared, loads the kernel, opens the disks and offers the devices.
///
/// # Errors
/// What failed, and what helps. The VPs are suspended as before.
pub fn prepare(link: ToDaemon, start: &Start, files: Vec<OwnedFd>) -> Result<Parts> {
    let mut files = Files::new(files);
    let vps = start.vps;
    let ram = files.take(start.ram_fd, "RAM")?;
    let memory = Arc::new(memory::map(&ram, start.memory_bytes)?);
    // From here on only the mapping is left: nobody can cut the file through that.
    drop(ram);
    let shared = map_pages(files.take(start.pages_fd, "shared pages")?, vps)?;
    let device = files.take(start.slot_fd, "the slot")?;
    let channel = Arc::new(Channel::new(device)?);
    let generation = Generation(start.generation);
    let mut slot = Slot::new(Arc::clone(&channel), generation).context("slot")?;
    let child = Child(PartitionId::new(start.partition));

    let boot = load_kernel(start, &mut files, &memory)?;
    for vp in 0..vps {
        let registers = if vp == 0 {
            &boot.registers
        } else {
            &boot.other_vps
        };
        child
            .set_registers(&mut slot, vp, registers)
            .with_context(|| format!("registers of VP {vp}"))?;
    }

    let disks = Disks::open(&start.name, &start.disks, |disk| {
        files.take(disk.fd, &disk.path)
    })?;
    let bell = Arc::new(Bell::new().context("an event counter")?);
    let words = |page: usize, count| {
        let first = page / 8;
        Words::new(Arc::clone(&shared), first..first + count)
    };
    let signals = Signals::new(
        words(pages::SIGNAL_PAGE, PAGE_WORDS),
        Arc::clone(&channel),
        generation,
    );
    let bus = offer(start, &memory, signals, &disks, &bell, &mut slot)?;
    let watcher = Watcher::new(words(pages::EVENT_AREA, AREA_WORDS), generation)
        .map_err(|error| anyhow!("the event area is not ours: {error:?}"))?;

    let socket = match start.console_fd {
        Some(index) => Some(files.take(index, "console")?),
        None => None,
    };
    let output = Output::default();
    let console = Console::new(socket, output.clone());
    let raised = Raised::default();
    let sink = Arc::clone(&raised);
    let devices = Devices::new(
        vps,
        Box::new(output),
        Box::new(move |interrupt: Interrupt| {
            sink.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(interrupt);
        }),
        Box::new(now),
    );
    let vps = (0..vps)
        .map(|vp| {
            Some(VpPages {
                intercept: words(pages::intercept_page(vp)?, PAGE_WORDS),
                registers: words(pages::register_page(vp)?, PAGE_WORDS),
            })
        })
        .collect::<Option<_>>()
        .context("more VPs than there are state pages")?;
    Ok(Parts {
        link,
        child,
        memory,
        slot,
        channel,
        watcher,
        vps,
        bus,
        devices,
        raised,
        console,
        disks,
        bell,
    })
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_secs())
}

fn map_pages(file: OwnedFd, vps: u32) -> Result<Arc<Mapping>> {
    let bytes = pages::file_bytes(vps)
        .with_context(|| format!("vps = {vps}: give 1 to {}", pages::VPS_MAX))?;
    let mapping = Mapping::lazily(&file, 0, bytes).context("mapping the shared pages")?;
    Ok(Arc::new(mapping))
}

fn load_kernel(start: &Start, files: &mut Files, memory: &GuestMemoryMmap) -> Result<BootState> {
    let mut kernel = files.file(start.kernel_fd, "the kernel")?;
    let mut initrd = match start.initrd_fd {
        Some(index) => Some(files.file(index, "the initrd")?),
        None => None,
    };
    let mut seed = [0; 32];
    let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    let options = Options {
        vps: start.vps,
        command_line: &start.command_line,
        seed: (filled == Ok(seed.len())).then_some(seed),
    };
    Ok(load(memory, &mut kernel, initrd.as_mut(), &options)?)
}

/// Offers the child its devices.
fn offer(
    start: &Start,
    memory: &Arc<GuestMemoryMmap>,
    signals: Signals,
    disks: &Disks,
    bell: &Arc<Bell>,
    slot: &mut Slot,
) -> Result<Bus> {
    let pool = Arc::new(Pool::new("disk", DISK_THREADS).context("threads for the disks")?);
    let signals: Arc<dyn SignalChild> = Arc::new(signals);
    let wake: Arc<dyn Wake> = Arc::clone(bell) as _;
    let mut bus = Bus::new(Arc::clone(memory), signals, wake);
    let config = ScsiConfig {
        instance: controller_instance(&start.name),
        limits: Config {
            max_sub_channels: (start.vps - 1).min(u16::MAX.into()) as u16,
            ..Config::default()
        },
    };
    let target = Arc::clone(&disks.target);
    bus.add(slot, |events| {
        Box::new(Scsi::new(config, target, Arc::clone(memory), pool, events))
    })?;
    Ok(bus)
}
