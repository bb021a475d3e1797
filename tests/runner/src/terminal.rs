//! A machine on the terminal: its first serial port is what one types and reads. Ctrl-A X leaves.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::termios::{self, OptionalActions, Termios};

use crate::emulator::Emulators;
use crate::files::RunFiles;
use crate::machine::{Console, Machine};
use crate::{bochs, qemu};

/// Starts `machine` on the terminal and returns when it has ended or one has left it.
pub fn run(emulators: &Emulators, machine: &Machine, files: &RunFiles) -> Result<()> {
    eprintln!(
        "Ctrl-A X leaves. The hypervisor's log is in {}",
        files.hypervisor_log().display()
    );
    if machine.model.is_bochs() {
        run_bochs(emulators, machine, files)
    } else {
        let mut command = qemu::command(emulators, machine, files, Console::Terminal)?;
        let status = command.status().context("starting QEMU")?;
        ensure!(
            status.success() || status.code().is_some_and(|code| code % 2 == 1),
            "QEMU failed: {status}"
        );
        Ok(())
    }
}

fn run_bochs(emulators: &Emulators, machine: &Machine, files: &RunFiles) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let mut command = bochs::command(emulators, machine, files, bochs::Com1::Port(port))?;
    let output = File::create(files.directory().join("emulator-output.txt"))?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut emulator = bochs::start(command, files)?;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = emulator.child.try_wait()? {
            anyhow::bail!(
                "Bochs ended at once ({status}); see {}",
                files.emulator_log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_nonblocking(false)?;
    let _raw = RawTerminal::enter()?;
    let to_guest = stream.try_clone()?;
    let (leave, left) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if forward_keys(to_guest).is_ok() {
            let _ = leave.send(());
        }
    });
    std::thread::spawn(move || show(stream));
    loop {
        if emulator.child.try_wait()?.is_some() || left.try_recv().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(40));
    }
}

fn show(mut from_guest: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut output = std::io::stdout();
    loop {
        let count = from_guest.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..count])?;
        output.flush()?;
    }
}

/// Returns when Ctrl-A X was typed; without a terminal, never.
fn forward_keys(mut to_guest: TcpStream) -> std::io::Result<()> {
    const CTRL_A: u8 = 1;
    let mut is_command = false;
    let mut byte = [0];
    loop {
        if std::io::stdin().read(&mut byte)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match (is_command, byte[0]) {
            (false, CTRL_A) => is_command = true,
            (true, b'x' | b'X') => return Ok(()),
            (_, other) => {
                is_command = false;
                to_guest.write_all(&[other])?;
            }
        }
    }
}

/// The terminal hands over each key as it is pressed, until this is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let before = termios::tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
