//! One run of a machine: starts the emulator, watches it, and says how it ended.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::emulator::Emulators;
use crate::files::RunFiles;
use crate::growing::Growing;
use crate::machine::{Console, Machine};
use crate::{bochs, qemu};

/// What an emulator reports about its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest reset the machine, or a triple fault did.
    Reset,
    /// The guest switched the machine off.
    PowerOff,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched the machine off.
    PowerOff,
    /// A reset ended the machine.
    Reset,
    /// The test device ended QEMU with this code, which the guest wrote.
    ExitCode(u32),
    /// The emulator ended by itself for another reason.
    EmulatorFailed,
    /// The guest printed one of the lines that end a run early.
    StopLine,
    /// Time ran out.
    TimedOut,
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// How often the guest reset the machine, the one that ended it included.
    pub resets: usize,
    /// The parent's console.
    pub parent: String,
    /// The hypervisor's log.
    pub hypervisor: String,
    /// What the emulator said about itself.
    pub emulator: String,
    /// Wall-clock time.
    pub elapsed: Duration,
}

/// When a run is cut short.
#[derive(Clone, Debug)]
pub struct Limits {
    /// After this time the machine is stopped.
    pub timeout: Duration,
    /// A line on either serial port that contains one of these ends the run soon after.
    pub stop_lines: Vec<String>,
    /// How long the machine may go on after one of them, to finish what it was printing.
    pub grace: Duration,
}

/// What is usual for [`Limits::grace`].
pub const GRACE: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(40);
/// How long a machine runs between two jolts.
const BETWEEN_JOLTS: Duration = Duration::from_millis(5);

/// Starts `machine`, waits for its end, and returns what it printed.
pub fn run(
    emulators: &Emulators,
    machine: &Machine,
    files: &RunFiles,
    limits: &Limits,
) -> Result<Outcome> {
    let is_bochs = machine.model.is_bochs();
    let mut command = if is_bochs {
        bochs::command(emulators, machine, files, bochs::Com1::File)?
    } else {
        qemu::command(emulators, machine, files, Console::File)?
    };
    let output = File::create(files.directory().join("emulator-output.txt"))?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let start = Instant::now();
    let mut emulator = if is_bochs {
        bochs::start(command, files)?
    } else {
        Emulator::start(command)?
    };
    let (sender, events) = mpsc::channel();
    let speaker = Arc::new(qemu::Speaker::new());
    if !is_bochs {
        let (monitor, registers) = (files.monitor(), files.registers());
        let speaker = speaker.clone();
        std::thread::spawn(move || qemu::listen(&monitor, &sender, &speaker, &registers));
    }

    let mut watch = Watch::new(events, files, limits);
    let status = loop {
        if let Some(status) = emulator.child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limits.timeout {
            qemu::ask_for_registers(&speaker, machine.processors);
            break None;
        }
        watch.collect();
        if is_bochs && machine.ends_at_reset && watch.bochs_has_reset() {
            break None;
        }
        if watch.is_stopped() {
            break None;
        }
        if machine.is_jolted {
            qemu::jolt(&speaker);
            std::thread::sleep(BETWEEN_JOLTS);
        } else {
            std::thread::sleep(POLL);
        }
    };
    drop(emulator);
    // QEMU's last event may still be on its way to us.
    watch.drain();

    let text =
        |path| fs::read(path).map_or(String::new(), |b| String::from_utf8_lossy(&b).into_owned());
    let emulator_log = text(files.emulator_log());
    let resets = if is_bochs {
        bochs::count_resets(&emulator_log)
    } else {
        watch.resets
    };
    let end = match status {
        None if start.elapsed() > limits.timeout => End::TimedOut,
        None if watch.stop_seen.is_some() => End::StopLine,
        None => End::Reset,
        Some(status) if is_bochs => {
            if bochs_powered_off(&emulator_log) {
                End::PowerOff
            } else {
                let _ = status; // Bochs ends with 1 in every case
                End::EmulatorFailed
            }
        }
        Some(status) => match status.code() {
            Some(0) if watch.ended_by == Some(Event::Reset) => End::Reset,
            Some(0) if watch.ended_by == Some(Event::PowerOff) => End::PowerOff,
            // isa-debug-exit: the code is twice what the guest wrote, plus one.
            Some(code) if code % 2 == 1 && code > 1 => End::ExitCode((code >> 1).unsigned_abs()),
            _ => End::EmulatorFailed,
        },
    };
    Ok(Outcome {
        end,
        resets,
        parent: text(files.parent_console()),
        hypervisor: text(files.hypervisor_log()),
        emulator: emulator_log + &text(files.directory().join("emulator-output.txt")),
        elapsed: start.elapsed(),
    })
}

fn bochs_powered_off(log: &str) -> bool {
    log.contains("ACPI control: soft power off")
}

/// A running emulator. It is stopped when this is dropped.
pub(crate) struct Emulator {
    pub(crate) child: Child,
}

impl Emulator {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { child })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What has been seen of a running machine.
struct Watch<'a> {
    events: Receiver<Event>,
    resets: usize,
    ended_by: Option<Event>,
    limits: &'a Limits,
    /// The parent's console and the hypervisor's log.
    printed: [Growing; 2],
    emulator: Growing,
    emulator_resets: usize,
    stop_seen: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(events: Receiver<Event>, files: &RunFiles, limits: &'a Limits) -> Self {
        Self {
            events,
            resets: 0,
            ended_by: None,
            limits,
            printed: [files.parent_console(), files.hypervisor_log()].map(Growing::new),
            emulator: Growing::new(files.emulator_log()),
            emulator_resets: 0,
            stop_seen: None,
        }
    }

    fn note(&mut self, event: Event) {
        self.resets += usize::from(event == Event::Reset);
        self.ended_by = Some(event);
    }

    fn collect(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
    }

    /// The listener ends with QEMU and closes the channel.
    fn drain(&mut self) {
        while let Ok(event) = self.events.recv_timeout(Duration::from_secs(2)) {
            self.note(event);
        }
    }

    fn bochs_has_reset(&mut self) -> bool {
        let resets = &mut self.emulator_resets;
        self.emulator.news(|line, is_whole| {
            *resets += usize::from(is_whole && bochs::is_reset(line));
        });
        self.emulator_resets > 1
    }

    fn is_stopped(&mut self) -> bool {
        if let Some(seen) = self.stop_seen {
            return seen.elapsed() > self.limits.grace;
        }
        let mut is_there = false;
        for text in &mut self.printed {
            let stop_lines = &self.limits.stop_lines;
            text.news(|line, _| is_there |= stop_lines.iter().any(|stop| line.contains(stop)));
        }
        if is_there {
            self.stop_seen = Some(Instant::now());
        }
        false
    }
}
