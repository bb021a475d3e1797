//! A program that was started on a tether ends with who started it, by whatever signal that one ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runner::tether::{self, AtDeath};
use rustix::process::{Pid, Signal, kill_process};

/// The first argument of the one in the middle.
const MIDDLE: &str = "start-one-and-wait";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    tether::enter();
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(MIDDLE) {
        return middle(arguments.next().as_deref() == Some("kill"));
    }
    let signals = [Signal::KILL, Signal::TERM, Signal::HUP, Signal::INT];
    let mut passed = 0;
    for signal in signals {
        for end in ["kill", "terminate"] {
            a_child_dies_with_its_parent(signal, end);
            passed += 1;
        }
    }
    arguments_environment_and_status_are_kept();
    println!(
        "test result: ok. {} passed; 0 failed; 0 ignored",
        passed + 1
    );
}

/// Starts a program that runs for long, says which process it is, and waits for it as long.
fn middle(is_killed: bool) {
    let end = if is_killed {
        AtDeath::Kill
    } else {
        AtDeath::Terminate
    };
    // Without the streams of the test: who waits for those would wait for a program that is left behind.
    let mut child = tether::command("sleep", end)
        .arg("90")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    println!("{}", child.id());
    child.wait().unwrap();
}

fn a_child_dies_with_its_parent(signal: Signal, end: &str) {
    // What starts this test may ignore signals, as shells do for what they start in the background.
    let mut middle = Command::new("env")
        .arg("--default-signal")
        .arg(std::env::current_exe().unwrap())
        .args([MIDDLE, end])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(middle.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    wait("the program runs", || {
        name(child).as_deref() == Some("sleep")
    });
    kill_process(Pid::from_child(&middle), signal).unwrap();
    assert!(!middle.wait().unwrap().success());
    // A dead one that nobody waited for has no command line any more.
    wait("the program ends", || name(child).is_none());
}

fn arguments_environment_and_status_are_kept() {
    let output = tether::command("sh", AtDeath::Kill)
        .args(["-c", "echo \"$1 $WORD $PWD\"; exit 7", "sh", "two words"])
        .env("WORD", "three")
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"two words three /\n");
    assert_eq!(output.status.code(), Some(7));
    let missing = tether::command("/no/such/program", AtDeath::Kill);
    let output = { missing }.output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        complaint.contains("starting /no/such/program: No such file"),
        "{complaint}"
    );
}

/// The program that a process runs. `None` when it is gone.
fn name(process: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let path = String::from_utf8_lossy(first).into_owned();
    let name = Path::new(&path).file_name()?;
    Some(name.to_string_lossy().into_owned())
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
