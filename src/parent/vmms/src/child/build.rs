//! A child from its files to the first word to its worker, and back to nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use addr::PartitionId;
use rustix::pipe::{PipeFlags, pipe_with};
use worker_link::{Disk, DiskKind, FdIndex, Identity, Link, Start, ToWorker, stop_point};

use super::files::{self, Files};
use crate::control::Calls;
use crate::description::Description;
use crate::holder::Holder;
use crate::images::Images;
use crate::memory::{self, Memory, Pool};
use crate::partition::{self, Plan, unmake};
use crate::paths::Paths;
use crate::record::{Crashes, Record, new_tag};
use crate::slots::Slots;
use crate::worker::{self, Worker};

/// User of the worker of slot 0; the others follow. Nobody else has these: they lie above Debian's own (Debian Policy,
/// "UID and GID classes") and systemd's dynamic users (61,184 to 65,519), below subordinate ones (from 100,000).
const FIRST_USER: u32 = 90_000;

/// What all children share.
pub struct Machine {
    /// Where things are.
    pub paths: Paths,
    /// The control channel.
    pub calls: Calls,
    /// The holder.
    pub holder: Holder,
    /// The slots.
    pub slots: Slots,
    /// Which child has which image.
    pub images: Images,
    /// Memory for the parent's own pool; never taken back.
    pub own_pool: Mutex<Pool>,
}

/// A child that exists.
#[derive(Debug)]
pub struct Existing {
    /// Its partition.
    pub partition: PartitionId,
    /// As it was started.
    pub record: Record,
    /// Its memory.
    pub memory: Memory,
    /// Its worker.
    pub worker: Worker,
    /// What its worker writes, until it closes it.
    pub log: Option<OwnedFd>,
    /// Its COM1.
    pub console: Option<UnixStream>,
    /// How long it took to get its memory from the kernel, which clears it.
    pub memory_took: Duration,
    /// When it was made, or found again.
    pub since: Instant,
    /// Blocks that its worker had deposited since then.
    pub deposits: u32,
    /// Errors that its worker told of since then.
    pub errors: u32,
}

/// Makes partition and worker of `description` and tells the worker to start. `begun` is what is to be given to
/// [`take_apart`] when it fails.
///
/// # Errors
/// What is wrong and what helps.
pub fn build(
    machine: &Arc<Machine>,
    description: &Description,
    starts: u32,
    crashes: &Crashes,
    begun: &mut Option<Record>,
) -> Result<Existing, String> {
    let name = &description.name;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let files = files::open(description, &machine.images)?;
    let taken = machine.slots.take(name);
    let (slot, slot_file) = taken.map_err(|error| {
        machine.images.release(name);
        text(&error)
    })?;
    let mut record = Record {
        tag: new_tag(),
        slot,
        description: description.clone(),
        starts,
        crashes: crashes.clone(),
        worker: None,
    };
    *begun = Some(record.clone());
    save(machine, &record)?;
    let began = Instant::now();
    let mut memory = Memory::allocate(
        &machine.holder,
        name,
        description.memory_bytes,
        description.vps,
    )
    .map_err(|e| text(&e))?;
    let memory_took = began.elapsed();
    let plan = Plan {
        tag: record.tag,
        vps: description.vps,
        memory_bytes: description.memory_bytes,
        ram: memory.ram.frames(),
        pages: memory.pages.frames().first().copied().unwrap_or_default(),
        slot,
    };
    let mut own = machine.own_pool.lock().unwrap_or_else(|e| e.into_inner());
    let made = partition::make(&machine.calls, &plan, &mut *own, &mut memory.pool);
    drop(own);
    let (partition, generation) = made.map_err(|e| text(&e))?;

    let ends = Ends::new(description.has_console).map_err(|e| text(&e))?;
    let errors = ends.log_write.try_clone().map_err(|e| text(&e))?;
    let worker = worker::spawn(&machine.paths.worker, name, errors).map_err(|e| text(&e))?;
    stop_point("vmms:spawned");
    let mut kept = vec![
        worker.process.as_fd(),
        worker.link.as_fd(),
        ends.log_read.as_fd(),
    ];
    kept.extend(ends.console.as_ref().map(|(ours, _)| ours.as_fd()));
    let set = memory::set(name, "worker");
    machine.holder.put(&set, &kept).map_err(|e| text(&e))?;
    record.worker = Some(worker.pid);
    save(machine, &record)?;

    let mut sent = Sent::default();
    let start = Start {
        name: name.clone(),
        partition: partition.get(),
        vps: description.vps,
        memory_bytes: description.memory_bytes,
        slot,
        generation: generation.0,
        slot_fd: sent.add(slot_file.as_fd()),
        ram_fd: sent.add(memory.ram.file()),
        pages_fd: sent.add(memory.pages.file()),
        kernel_fd: sent.add(files.kernel.as_fd()),
        initrd_fd: files.initrd.as_ref().map(|file| sent.add(file.as_fd())),
        console_fd: ends
            .console
            .as_ref()
            .map(|(_, theirs)| sent.add(theirs.as_fd())),
        log_fd: Some(sent.add(ends.log_write.as_fd())),
        command_line: description.command_line.clone(),
        disks: disks(description, &files, &mut sent),
        identity: Some(Identity {
            uid: FIRST_USER + slot,
            gid: FIRST_USER + slot,
        }),
    };
    let start = ToWorker::Start(Box::new(start));
    worker
        .link
        .send(&start, &sent.0)
        .map_err(|error| format!("telling the worker to start: {error}"))?;
    stop_point("vmms:told");
    Ok(Existing {
        partition,
        record,
        memory,
        worker,
        log: Some(ends.log_read),
        console: ends.console.map(|(ours, _)| ours),
        memory_took,
        since: Instant::now(),
        deposits: 0,
        errors: 0,
    })
}

fn save(machine: &Machine, record: &Record) -> Result<(), String> {
    let directory = machine.paths.records();
    record
        .save(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))
}

fn disks<'a>(description: &Description, files: &'a Files, sent: &mut Sent<'a>) -> Vec<Disk> {
    let disks = description.disks.iter().zip(&files.disks).zip(0..);
    disks
        .map(|((disk, file), lun)| Disk {
            fd: sent.add(file.as_fd()),
            path: disk.path.display().to_string(),
            format: disk.format,
            kind: if disk.cdrom {
                DiskKind::Cdrom
            } else {
                DiskKind::Disk
            },
            read_only: disk.read_only,
            serial: disk.serial.clone(),
            lun,
        })
        .collect()
}

/// The files that go with the first message.
#[derive(Default)]
struct Sent<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Sent<'a> {
    fn add(&mut self, file: BorrowedFd<'a>) -> FdIndex {
        self.0.push(file);
        FdIndex(self.0.len() as u32 - 1)
    }
}

/// Both ends of console and log.
struct Ends {
    console: Option<(UnixStream, UnixStream)>,
    log_read: OwnedFd,
    log_write: OwnedFd,
}

impl Ends {
    fn new(has_console: bool) -> io::Result<Self> {
        let console = match has_console {
            true => {
                let (ours, theirs) = UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                theirs.set_nonblocking(true)?;
                Some((ours, theirs))
            }
            false => None,
        };
        // A worker must not wait for a daemon that is gone.
        let (log_read, log_write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            console,
            log_read,
            log_write,
        })
    }
}

/// The child that a daemon before this one made, when it is whole: its partition is there, and its worker was told to
/// start.
///
/// # Errors
/// Why it cannot be gone on with; it is to be taken apart.
pub fn adopt(machine: &Arc<Machine>, record: Record) -> Result<Existing, String> {
    let name = record.description.name.clone();
    files::note(&record.description, &machine.images);
    let held = machine.calls.list().map_err(|error| error.to_string())?;
    let held = held
        .iter()
        .find(|held| held.tag == record.tag && held.slot.is_some_and(|(n, _)| n == record.slot));
    let held = held.ok_or("it has no partition with a slot")?;
    let pid = record.worker.ok_or("its worker was not started")?;
    let mut files = machine
        .holder
        .get(&memory::set(&name, "worker"))
        .map_err(|error| error.to_string())?
        .into_iter();
    let (Some(process), Some(link), Some(log)) = (files.next(), files.next(), files.next()) else {
        return Err("the holder has no worker of it".to_owned());
    };
    let memory = Memory::adopt(&machine.holder, &name).map_err(|error| error.to_string())?;
    Ok(Existing {
        partition: held.partition,
        record,
        memory,
        worker: Worker {
            process,
            pid,
            link: Link::new(link),
        },
        log: Some(log),
        console: files.next().map(UnixStream::from),
        memory_took: Duration::ZERO,
        since: Instant::now(),
        deposits: 0,
        errors: 0,
    })
}

/// Takes apart whatever there is of the child of `record`: its worker, its partition, its memory, its slot. It can be
/// called at any point of its life, and again.
///
/// # Errors
/// What could not be done; everything after it was not done either.
pub fn take_apart(machine: &Machine, record: &Record) -> Result<(), String> {
    let name = &record.description.name;
    end_worker(machine, name)?;
    let held = machine.calls.list().map_err(|error| error.to_string())?;
    for held in held.iter().filter(|held| held.tag == record.tag) {
        unmake(&machine.calls, held.partition).map_err(|error| error.to_string())?;
    }
    // Nothing of it is the hypervisor's any more.
    stop_point("vmms:deleted");
    memory::release(&machine.holder, name).map_err(|error| error.to_string())?;
    machine.slots.release(record.slot);
    machine.images.release(name);
    Record::remove(&machine.paths.records(), name);
    Ok(())
}

/// Ends the worker of child `name`, if the holder knows one, and waits until it is gone.
///
/// # Errors
/// What the holder or the system says.
pub fn end_worker(machine: &Machine, name: &str) -> Result<(), String> {
    let set = machine.holder.get(&memory::set(name, "worker"));
    let set = set.map_err(|error| error.to_string())?;
    match set.first() {
        Some(process) => worker::end(process, name).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
