//! The thread of one child.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmms_proto::{ChildInfo, ChildState};
use worker_link::{FromWorker, LinkError, ToWorker};

use super::build::{Existing, Machine, build, take_apart};
use super::console::Console;
use super::info::{fill, reached};
use super::resizing::Resizing;
use super::{Command, Found, Goal, Outcome};
use crate::description::{Description, Restart};
use crate::life::{Action, Event, Life};
use crate::log::{Log, harmless};
use crate::record::{Crashes, Record};
use crate::worker::said;

/// What a place in the list of descriptors is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake,
    Process,
    Link,
    Log,
    Console,
    Viewer,
}

/// Messages of a worker that are heard in one go: one that never stops must not keep others waiting.
const MESSAGES: usize = 64;

/// Errors of one worker that are told of.
const ERRORS_MAX: u32 = 200;
/// All there is of a child.
pub struct Thread {
    pub(super) machine: Arc<Machine>,
    pub(super) name: String,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    info: Arc<Mutex<ChildInfo>>,
    pub(super) life: Life,
    pub(super) description: Option<Description>,
    pub(super) existing: Option<Existing>,
    /// What is to be taken apart.
    pub(super) begun: Option<Record>,
    pub(super) crashes: Crashes,
    console: Console,
    pub(super) log: Log,
    /// Those who wait, and for what.
    waiting: Vec<(Goal, SyncSender<Outcome>)>,
    /// Those who wait for a disk to be looked at.
    pub(super) resizing: Resizing,
    deadline: Option<Instant>,
    /// Nobody can reach it any more.
    is_over: bool,
}

impl Thread {
    /// Of a child that does not exist yet.
    pub fn new(
        machine: Arc<Machine>,
        name: &str,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        info: Arc<Mutex<ChildInfo>>,
    ) -> Self {
        let log = Log::open(&machine.paths.log, name);
        Self {
            machine,
            name: name.to_owned(),
            commands,
            wake,
            info,
            life: Life::new(Restart::default()),
            description: None,
            existing: None,
            begun: None,
            crashes: Crashes::default(),
            console: Console::default(),
            log,
            waiting: Vec::new(),
            resizing: Resizing::default(),
            deadline: None,
            is_over: false,
        }
    }

    /// Lives until nobody knows the child.
    pub fn run(mut self, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Child(record) => self.find_again(*record),
            Found::Waiting(waiting) => self.wait_again(*waiting),
        }
        while !self.is_over {
            self.wait();
        }
    }

    /// Waits for something, once, and takes note of it.
    fn wait(&mut self) {
        let ready = match self.poll() {
            Ok(ready) => ready,
            Err(error) => {
                self.note(&format!("waiting: {error}"));
                std::thread::sleep(Duration::from_millis(100));
                return;
            }
        };
        for source in ready {
            match source {
                Source::Wake => self.commanded(),
                // What the worker said before its end comes first.
                Source::Link => self.listen(MESSAGES),
                Source::Process => {
                    self.listen(usize::MAX);
                    self.read_log();
                    self.happens(Event::WorkerGone);
                }
                Source::Log => self.read_log(),
                Source::Console => self.relay(),
                Source::Viewer => self.console.serve(),
            }
        }
        self.resizing.expire(Instant::now());
        if self.deadline.is_some_and(|time| time <= Instant::now()) {
            self.deadline = None;
            self.happens(Event::Time);
        }
    }

    /// What can be read, or written where something waits to be.
    fn poll(&self) -> rustix::io::Result<Vec<Source>> {
        let reads = PollFlags::IN;
        let writes = |waits: bool| {
            if waits {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            }
        };
        let mut places = vec![(Source::Wake, self.wake.as_fd(), reads)];
        if let Some(existing) = &self.existing {
            // Once it is over, only its end is of interest.
            if self.life.state() != ChildState::Stuck {
                places.push((Source::Process, existing.worker.process.as_fd(), reads));
                places.push((Source::Link, existing.worker.link.as_fd(), reads));
                let log = existing.log.as_ref();
                places.extend(log.map(|log| (Source::Log, log.as_fd(), reads)));
            }
            if let Some(com1) = &existing.console {
                let flags = reads | writes(self.console.has_typed());
                places.push((Source::Console, com1.as_fd(), flags));
            }
        }
        let typing = match self.console.takes_typing() {
            true => reads,
            false => PollFlags::empty(),
        };
        for (viewer, waits) in self.console.viewers() {
            places.push((Source::Viewer, viewer, typing | writes(waits)));
        }
        let mut fds: Vec<_> = places
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let deadline = self.deadline.into_iter().chain(self.resizing.deadline());
        let left = deadline
            .min()
            .map(|time| time.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        let mut ready: Vec<Source> = Vec::new();
        for ((source, _, _), fd) in places.iter().zip(&fds) {
            // All viewers are served together.
            if !fd.revents().is_empty() && ready.last() != Some(source) {
                ready.push(*source);
            }
        }
        Ok(ready)
    }

    fn commanded(&mut self) {
        let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Start(description, reply) => {
                    let is_new =
                        matches!(self.life.state(), ChildState::Stopped | ChildState::Waiting);
                    if is_new {
                        self.life.restart = description.restart;
                        self.life.on_crash = description.on_crash;
                        self.description = Some(*description);
                    }
                    self.wished(Event::Start, Goal::Running, reply);
                }
                Command::Wish(event, goal, reply) => self.wished(event, goal, reply),
                Command::Resize(lun, reply) => {
                    match self.life.state() {
                        ChildState::Running | ChildState::Paused => {
                            self.resizing.add(lun, reply);
                            self.tell(&ToWorker::ResizeDisk { lun });
                        }
                        state => drop(reply.send(Err(format!("it is {state}, not running")))),
                    };
                }
                Command::View(stream) => self.console.attach(stream),
                Command::End => self.is_over = true,
            }
        }
        self.console.serve();
    }

    fn wished(&mut self, event: Event, goal: Goal, reply: SyncSender<Outcome>) {
        match self.life.on(event) {
            Err(why) => drop(reply.send(Err(why))),
            Ok(actions) => {
                self.waiting.push((goal, reply));
                self.carry_out(actions);
            }
        }
    }

    /// Takes note of an event that is nobody's wish.
    pub(super) fn happens(&mut self, event: Event) {
        let actions = self.life.on(event).unwrap_or_default();
        self.carry_out(actions);
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        self.changed();
        while let Some(action) = actions.pop_front() {
            let event = match action {
                Action::Tell(message) => {
                    self.tell(&message);
                    continue;
                }
                Action::Wake(after) => {
                    self.deadline = Some(Instant::now() + after);
                    continue;
                }
                Action::NoWake => {
                    self.deadline = None;
                    continue;
                }
                Action::Refuse(why) => {
                    for (_, reply) in self.waiting.drain(..) {
                        let _ = reply.send(Err(why.clone()));
                    }
                    continue;
                }
                Action::Build => self.build(),
                Action::TakeApart => self.take_apart(),
            };
            actions.extend(self.life.on(event).unwrap_or_default());
            self.changed();
        }
    }

    fn build(&mut self) -> Event {
        let Some(description) = self.description.clone() else {
            return Event::BuildFailed("it has no description".to_owned());
        };
        self.note("starting");
        match build(
            &self.machine,
            &description,
            self.life.starts,
            &self.crashes,
            &mut self.begun,
        ) {
            Ok(existing) => {
                let (partition, slot) = (existing.partition, existing.record.slot);
                let pid = existing.worker.pid;
                self.note(&format!(
                    "partition {:#x}, slot {slot}, worker {pid}; memory took {:.1?}",
                    partition.get(),
                    existing.memory_took
                ));
                self.existing = Some(existing);
                Event::Built
            }
            Err(why) => Event::BuildFailed(why),
        }
    }

    fn take_apart(&mut self) -> Event {
        if let Some(end) = self.life.last_end.clone() {
            self.note(&format!("ended: {end}"));
        }
        self.relay();
        let ran = self
            .existing
            .as_ref()
            .map_or(Duration::ZERO, |existing| existing.since.elapsed());
        if let Some(record) = &self.begun
            && let Err(why) = take_apart(&self.machine, record)
        {
            self.note(&format!("it could not be taken apart: {why}"));
            return Event::Stuck(why);
        }
        self.read_log();
        self.begun = None;
        self.existing = None;
        self.resizing.fail("it ended");
        Event::Gone(ran)
    }

    /// Hears at most so many messages of the worker.
    fn listen(&mut self, most: usize) {
        let Some(existing) = &self.existing else {
            return;
        };
        let (messages, end) = said(&existing.worker.link, most);
        for message in messages {
            self.hear(message);
        }
        match end {
            None => {}
            // Its end comes by its process; until then there is nothing to hear.
            Some(LinkError::Closed) => self.happens(Event::WorkerGone),
            Some(error) => {
                self.note(&format!("its worker: {error}"));
                self.happens(Event::WorkerGone);
            }
        }
    }

    fn hear(&mut self, message: FromWorker) {
        match &message {
            FromWorker::Error { text } => {
                let text = harmless(&format!("worker: {text}"));
                let existing = self.existing.as_mut();
                let errors = existing.map_or(0, |existing| {
                    existing.errors = existing.errors.saturating_add(1);
                    existing.errors
                });
                if errors <= ERRORS_MAX {
                    self.note(&text);
                }
                self.resizing.fail(&text);
            }
            FromWorker::Resized { lun, bytes } => {
                self.note(&format!("disk {lun} has {bytes} bytes now"));
                self.resizing.done(*lun);
            }
            FromWorker::Crashed { parameters, text } => self.crashed(*parameters, text.as_deref()),
            FromWorker::DepositLow => self.deposit(),
            _ => {}
        }
        self.happens(Event::Said(message));
    }

    pub(super) fn tell(&mut self, message: &ToWorker) {
        let Some(existing) = &self.existing else {
            return;
        };
        match existing.worker.link.send(message, &[]) {
            // Its death is seen by its process.
            Ok(()) | Err(LinkError::Closed) => {}
            Err(error) => self.note(&format!("telling its worker: {error}")),
        }
    }

    fn relay(&mut self) {
        if let Some(existing) = &mut self.existing
            && let Some(com1) = &existing.console
            && !self.console.relay(com1)
        {
            existing.console = None;
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        if self.log.note(text) {
            crate::say!("vmms: {}: {text}", self.name);
        }
    }

    /// Publishes what it is doing, and answers those who waited for it.
    fn changed(&mut self) {
        let state = self.life.state();
        let info = self.describe();
        let was = {
            let mut shared = self.info.lock().unwrap_or_else(|error| error.into_inner());
            std::mem::replace(&mut *shared, info).state
        };
        if state != was {
            self.note_waiting();
        }
        if state != was && matches!(state, ChildState::Running | ChildState::Paused) {
            self.note(&format!("{state}"));
        }
        if state == ChildState::Stopped && was != state {
            let end = self.life.last_end.clone().unwrap_or_default();
            let word = format!("\r\n[{}: {end}]\r\n", self.name);
            self.console.close(&word);
        }
        let end = self.life.last_end.clone().unwrap_or_default();
        self.waiting.retain(|(goal, reply)| {
            let outcome = reached(*goal, state, &end);
            // Who does not wait any more is not told.
            outcome.map(|outcome| reply.send(outcome)).is_none()
        });
    }

    fn describe(&self) -> ChildInfo {
        let mut info = ChildInfo {
            name: self.name.clone(),
            state: self.life.state(),
            starts: self.life.starts,
            last_end: self.life.last_end.clone(),
            crashes: self.crashes.count,
            last_crash: self.crashes.last.clone(),
            ..ChildInfo::default()
        };
        if let Some(description) = &self.description {
            fill(&mut info, description);
        }
        if let Some(existing) = &self.existing {
            info.partition = Some(existing.partition.get());
            info.slot = Some(existing.record.slot);
            info.worker = Some(existing.worker.pid);
        }
        info
    }
}
