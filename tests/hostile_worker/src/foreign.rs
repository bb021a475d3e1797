//! What is not its own: other processes, other devices, pages of the driver's.
#![expect(unsafe_code, reason = "a system call that no wrapper has")]

use std::fs::{self, File};
use std::io::{Error, Read};
use std::sync::atomic::Ordering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uio::Mapping;

use crate::{Loot, forbidden, tell, text};

/// Pages of the driver's that it offers beside the rings, as maps of one page (Linux, `drivers/uio/uio_hv_generic.c`).
const DRIVERS: [(&str, u64); 2] = [("interrupt page", 1), ("monitor page", 2)];

pub fn attack(loot: &Loot) {
    let slot = loot.file(loot.start.slot_fd);
    for (name, map) in DRIVERS {
        match Mapping::new(slot, map * 4096, 4096) {
            Ok(page) => {
                for word in page.words() {
                    word.store(u64::MAX, Ordering::Relaxed);
                }
                tell(&format!("writing the {name}"), Ok(()));
            }
            Err(error) => tell(&format!("writing the {name}"), Err(text(error))),
        }
    }
    for map in 3..16 {
        let result = Mapping::new(slot, map * 4096, 4096);
        let what = format!("map {map} of the slot");
        forbidden(&what, result.map(drop).map_err(text));
    }
    let more = Mapping::lazily(slot, 0, 35 * 4096).map(drop);
    forbidden("more of the rings than there is", more.map_err(text));
    for path in devices() {
        let opened = File::options().read(true).write(true).open(&path);
        forbidden(&path, opened.map(drop).map_err(text));
    }
    for process in processes() {
        let Process { pid, name } = &process;
        let called = |what: &str| format!("{what} of {name}");
        for part in ["mem", "maps", "fd/0", "root/etc"] {
            let path = format!("/proc/{pid}/{part}");
            let read = File::open(path).and_then(|mut file| file.read(&mut [0; 1]));
            forbidden(&called(part), read.map(drop).map_err(text));
        }
        let killed = kill(Pid::from_raw(*pid), Signal::SIGKILL).map_err(text);
        forbidden(&called("death"), killed);
        // SAFETY: no memory of this process is concerned.
        let traced = unsafe { libc::ptrace(libc::PTRACE_ATTACH, *pid, 0, 0) };
        let traced = match traced {
            0 => Ok(()),
            _ => Err(text(Error::last_os_error())),
        };
        forbidden(&called("control"), traced);
    }
    forbidden("frame numbers", frame_numbers());
    let run = "/run/verdigris/";
    for socket in ["vmms.sock", "holder.sock"] {
        let connected = std::os::unix::net::UnixStream::connect(run.to_owned() + socket);
        forbidden(socket, connected.map(drop).map_err(text));
    }
}

fn devices() -> Vec<String> {
    let all = fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = all.map(|entry| entry.path().display().to_string());
    let wanted = ["/dev/uio", "/dev/vd", "/dev/sd", "/dev/mem", "/dev/udmabuf"];
    names
        .filter(|name| wanted.iter().any(|wanted| name.starts_with(wanted)))
        .collect()
}

struct Process {
    pid: i32,
    name: String,
}

/// Workers of others, the daemon and the holder.
fn processes() -> Vec<Process> {
    let own = std::process::id() as i32;
    let uid = format!("Uid:\t{}", nix::unistd::getuid());
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter_map(|pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let name = status.lines().next()?.strip_prefix("Name:\t")?.to_owned();
        let is_wanted = ["vmms", "vmwp"].contains(&&*name) && pid != own;
        (is_wanted && !status.contains(&uid)).then_some(Process { pid, name })
    })
    .collect()
}

/// The kernel hides the numbers of frames from those without privilege (Linux, `fs/proc/task_mmu.c`).
fn frame_numbers() -> Result<(), String> {
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")
        .and_then(|mut file| {
            use std::io::{Seek, SeekFrom};
            file.seek(SeekFrom::Start(entry.as_ptr() as u64 / 4096 * 8))?;
            file.read_exact(&mut entry)
        })
        .map_err(text)?;
    match u64::from_le_bytes(entry) & ((1 << 55) - 1) {
        0 => Err("they are 0".to_owned()),
        _ => Ok(()),
    }
}
