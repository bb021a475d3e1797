//! What the process may still do.
//!
//! Before anything of the child is touched: namespaces of its own with nothing in them, another user, no privilege ever
//! again. When everything is mapped: a list of system calls, all others fail. It opens nothing, maps no file, starts
//! nothing. The files of the child's RAM and of the shared pages are closed by then, so that the calls which make holes in
//! disk images reach no RAM.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, mkdir, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use worker_link::Identity;

/// Where the empty root is mounted: a directory that every system has.
const ROOT: &str = "/proc";

/// Leaves the parent's namespaces and becomes `identity`. There must be no other thread.
///
/// # Errors
/// What the kernel refused. The process is to end then.
pub fn become_nobody(identity: Option<Identity>) -> Result<()> {
    if geteuid().is_root() {
        leave_namespaces().context("leaving the parent's namespaces")?;
    }
    if let Some(Identity { uid, gid }) = identity {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[])
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .with_context(|| format!("becoming user {uid}"))?;
    }
    prctl::set_no_new_privs().context("giving up privileges")?;
    prctl::set_dumpable(false).context("forbidding core dumps")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("forbidding core dumps")
}

fn leave_namespaces() -> nix::Result<()> {
    let none: Option<&str> = None;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
    mount(Some("none"), ROOT, Some("tmpfs"), flags, none)?;
    chdir(ROOT)?;
    // What a block device is like stands there, and is read before calls that open files are forbidden.
    mkdir("sys", Mode::S_IRWXU)?;
    mount(Some("/sys"), "sys", none, MsFlags::MS_BIND, none)?;
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, "sys", none, again | flags, none)?;
    mount(
        none,
        ".",
        none,
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags,
        none,
    )?;
    chroot(".")
}

/// Calls without any condition.
const ALLOWED: &[libc::c_long] = &[
    // Files that are open: disks, sockets, the slot.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // Memory of its own.
    libc::SYS_munmap,
    libc::SYS_brk,
    // Threads that there are, time, signals, the end.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Requests to block devices (`linux/fs.h`): read-only, sector size, physical sector size, size, discard, zero.
const IOCTLS: [u64; 7] = [0x125E, 0x1268, 0x127B, 0x8008_1272, 0x1277, 0x127F, 0x127C];

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    let length = SeccompCmpArgLen::Qword;
    Ok(SeccompCondition::new(argument, length, operator, value)?)
}

fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    Ok(SeccompRule::new(conditions)?)
}

/// Forbids every system call that serving a child does not need, to all threads, for good.
///
/// # Errors
/// The kernel has no seccomp. The process is to end then.
pub fn forbid() -> Result<()> {
    let program = program()?;
    apply_filter_all_threads(&program).context("system calls cannot be limited")
}

fn program() -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let (equal, masked) = (SeccompCmpOp::Eq, SeccompCmpOp::MaskedEq);
    let anonymous = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE) as u64;
    // No others: huge pages are there for children, and anybody may map them.
    let harmless = (libc::MAP_FIXED | libc::MAP_NORESERVE | libc::MAP_STACK) as u64;
    let executable = libc::PROT_EXEC as u64;
    rules.insert(
        libc::SYS_mmap,
        vec![all(vec![
            when(2, masked(executable), 0)?,
            when(3, masked(!harmless), anonymous)?,
        ])?],
    );
    rules.insert(
        libc::SYS_mprotect,
        vec![all(vec![when(2, masked(executable), 0)?])?],
    );
    rules.insert(
        libc::SYS_madvise,
        vec![all(vec![when(
            2,
            equal.clone(),
            libc::MADV_DONTNEED as u64,
        )?])?],
    );
    let mut ioctls = Vec::new();
    for request in IOCTLS {
        ioctls.push(all(vec![when(1, equal.clone(), request)?])?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::process::Command;

    use disk::{Format, Image, Options};
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    use super::*;

    /// Does all that a child can ask for.
    fn use_image(image: &dyn Image) {
        let mut bytes = vec![7; 4 << 20];
        image.write(8192, (&bytes[..]).into()).unwrap();
        image.flush().unwrap();
        image.write_zeroes(1 << 20, 1 << 20).unwrap();
        if image.traits().discard.is_some() {
            image.discard(2 << 20, 1 << 20).unwrap();
        }
        image.read(8192, (&mut bytes[..]).into()).unwrap();
        assert_eq!((bytes[0], bytes[1 << 20]), (7, 0));
        image.refresh().unwrap();
        image.flush().unwrap();
    }

    #[expect(unsafe_code, reason = "a mapping that nobody uses")]
    fn map_anonymous(flags: MapFlags) -> std::io::Result<()> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, ProtFlags::READ, flags) }?;
        Ok(())
    }

    /// In a process of its own: there is no way back.
    #[test]
    fn what_is_not_on_the_list_is_refused() {
        let own = std::env::current_exe().unwrap();
        let test = "confine::tests::inside";
        let output = Command::new(own)
            .args(["--exact", test, "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("all as it should be"), "{text}");
    }

    #[test]
    #[ignore = "needs root and namespaces; gives up everything"]
    fn nobody_sees_nothing() {
        let identity = Identity {
            uid: 90_000,
            gid: 90_001,
        };
        let folder = tempfile::tempdir().unwrap();
        let images = [Format::Raw, Format::Qcow2, Format::Vhdx, Format::Vhd].map(|format| {
            let path = folder.path().join(format.name());
            disk::create(&path, format, 64 << 20).unwrap();
            let file = File::options().read(true).write(true).open(&path);
            (file.unwrap(), path, Options::new(format))
        });
        // Threads keep their own root and user here; the worker has one thread when it does this.
        std::thread::spawn(move || {
            become_nobody(Some(identity)).unwrap();
            assert!(!std::path::Path::new("/etc").exists());
            assert!(std::path::Path::new("/sys/dev/block").exists());
            assert!(File::create("/file").is_err());
            assert!(File::create("/sys/power/state").is_err());
            assert_eq!(nix::unistd::getuid().as_raw(), 90_000);
            assert_eq!(nix::unistd::getegid().as_raw(), 90_001);
            for (file, path, options) in images {
                use_image(&*disk::open_file(file, &path, &options).unwrap());
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    #[ignore = "gives up everything: run by the test above"]
    fn inside() {
        let mut disk = tempfile::tempfile().unwrap();
        prctl::set_no_new_privs().unwrap();
        let pool = disk::Pool::new("test", 1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<_> = [Format::Raw, Format::Qcow2, Format::Vhdx, Format::Vhd]
            .into_iter()
            .map(|format| {
                let path = folder.path().join(format.name());
                disk::create(&path, format, 64 << 20).unwrap();
                disk::open(&path, &Options::new(format)).unwrap()
            })
            .collect();
        forbid().unwrap();
        disk.write_all(b"still").unwrap();
        disk.sync_data().unwrap();
        images.iter().for_each(|image| use_image(&**image));
        let refused = |result: std::io::Result<()>| {
            let error = result.expect_err("allowed");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        };
        let opening = || File::open("/etc/passwd").map(drop);
        refused(opening());
        refused(uio::Mapping::new(&disk, 0, 4096).map(drop));
        refused(map_anonymous(MapFlags::PRIVATE | MapFlags::HUGETLB));
        refused(map_anonymous(MapFlags::SHARED));
        map_anonymous(MapFlags::PRIVATE | MapFlags::NORESERVE).unwrap();
        refused(Command::new("/bin/true").spawn().map(drop));
        refused(std::os::unix::net::UnixStream::pair().map(drop));
        // Threads that there were before are bound as well, and live.
        let (sender, receiver) = std::sync::mpsc::channel();
        pool.submit(move || sender.send(opening()).unwrap())
            .unwrap();
        refused(receiver.recv().unwrap());
        let large = vec![1_u8; 8 << 20];
        println!("all as it should be, {}", large.len());
        std::process::exit(0);
    }
}
