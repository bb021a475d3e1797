//! `vmms`: the daemon of the parent partition. It makes children as files describe them, gives each a worker, keeps them
//! as those files say, and takes them apart. `vmctl` tells it what to do.
//!
//! All that takes a frame or changes who owns one goes through here: workers name neither. What the daemon must not lose
//! is elsewhere: files with the [`holder`], partitions with the hypervisor under a tag, and what was asked for in a
//! [`record`] of each child. So it can die and be started again at any time.
#![forbid(unsafe_code)]

mod child;
mod control;
mod description;
mod holder;
mod images;
mod inventory;
mod life;
mod log;
mod memory;
mod notify;
mod partition;
mod paths;
mod record;
mod server;
mod slots;
mod worker;

use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slot_proto::Request;

use child::Machine;
use control::{Answer, Broken, Calls, Control, ControlChannel};
use holder::Holder;
use images::Images;
use inventory::Inventory;
use memory::Pool;
use paths::Paths;
use slots::Slots;

/// The daemon that makes child partitions of Verdigris and keeps them.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Directory of descriptions, NAME.toml each.
    #[arg(long, default_value = "/etc/verdigris/children")]
    children: PathBuf,
    /// Directory of sockets and records.
    #[arg(long, default_value = "/run/verdigris", global = true)]
    run: PathBuf,
    /// Directory of logs.
    #[arg(long, default_value = "/var/log/verdigris")]
    log: PathBuf,
    /// The worker's program [default: vmwp beside this one].
    #[arg(long)]
    worker: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Keep open files for the daemon; to be started before it, and to be ended after all children.
    Holder,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Sockets are made before they get their mode.
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let result = match options.command {
        Some(Part::Holder) => hold(&options),
        None => serve(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::say!("vmms: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(options: &Options) -> Result<(), Box<dyn Error>> {
    raise_limit();
    make(&options.run)?;
    // The last process that the kernel should think of when memory runs out.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        crate::say!("vmms holder: /proc/self/oom_score_adj: {error}");
    }
    let path = options.run.join("holder.sock");
    holder::serve(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    raise_limit();
    let worker = match options.worker {
        Some(worker) => worker,
        None => std::env::current_exe()?.with_file_name("vmwp"),
    };
    let paths = Paths {
        children: options.children,
        run: options.run,
        log: options.log,
        worker,
    };
    for directory in [&paths.run, &paths.records(), &paths.waiting(), &paths.log] {
        make(directory)?;
    }
    let socket = paths.socket();
    let listener =
        server::listen(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    let holder = Holder::connect(&paths.holder())?;
    let bus = uio::Bus::default();
    let control = connect(&bus, &holder)?;
    forget_other_start(&paths, control.boot_id())?;
    let calls = Calls(Arc::new(Mutex::new(OrEnd(control))));
    let machine = Machine {
        slots: Slots::new(bus, holder.clone(), calls.clone())?,
        images: Images::default(),
        own_pool: Mutex::new(Pool::adopt(&holder, "parent")?),
        paths,
        calls,
        holder: holder.clone(),
    };
    let inventory = Arc::new(Inventory::new(machine)?);
    watch(holder, Arc::clone(&inventory))?;
    notify::ready();
    inventory.autostart();
    server::run(&listener, &inventory)
}

/// The control channel, with which the daemon ends: its children go on, and the next one finds them.
struct OrEnd(ControlChannel);

impl Control for OrEnd {
    fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Broken> {
        self.0.ask(request).inspect_err(|error| {
            crate::say!("vmms: {error}; vmms ends, its children go on: start it again");
            std::process::exit(1);
        })
    }
}

/// Looks after the holder. Without one the pins of all memory end with this process, so no child may go on.
fn watch(holder: Holder, inventory: Arc<Inventory>) -> std::io::Result<()> {
    let name = "holder".to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        if let Err(error) = holder.watch() {
            crate::say!("vmms: all children are switched off: {error}");
            inventory.kill_all();
            if inventory.give_up() {
                crate::say!("vmms: nothing of it is left; start `vmms holder`, then vmms");
                std::process::exit(1);
            }
            crate::say!("vmms: not all memory came back: it stays pinned, and vmms stays with it");
        }
    });
    thread.map(drop)
}

/// The control channel: the one that a daemon before this one opened, when it is of use.
fn connect(bus: &uio::Bus, holder: &Holder) -> Result<ControlChannel, Box<dyn Error>> {
    if let Some(device) = holder.get("control")?.into_iter().next() {
        match ControlChannel::resume(device) {
            Ok(control) => return Ok(control),
            Err(error) => crate::say!("vmms: the control channel is opened anew: {error}"),
        }
        // The device is closed when nobody has it, and only then opened again.
        holder.drop_set("control")?;
    }
    let control = ControlChannel::open(bus)?;
    holder.put("control", &[control.duplicate()?.as_fd()])?;
    Ok(control)
}

/// Removes records of children of another start of the hypervisor: they are gone.
fn forget_other_start(paths: &Paths, boot_id: u64) -> Result<(), Box<dyn Error>> {
    let path = paths.run.join("boot-id");
    let boot_id = format!("{boot_id:016x}");
    if fs::read_to_string(&path).is_ok_and(|known| known == boot_id) {
        return Ok(());
    }
    for record in record::Record::all(&paths.records()) {
        record::Record::remove(&paths.records(), &record.description.name);
    }
    for waiting in record::Waiting::all(&paths.waiting()) {
        record::Waiting::remove(&paths.waiting(), &waiting.description.name);
    }
    fs::write(&path, boot_id)?;
    Ok(())
}

fn make(directory: &std::path::Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))
}

/// Each child takes a dozen files here and with the holder.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        crate::say!("vmms: the limit of open files stays as it is: {error}");
    }
}
