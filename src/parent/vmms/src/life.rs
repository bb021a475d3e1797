//! The life of a child as a state machine: events in, actions out. It knows no process, file or clock.

use std::time::Duration;

use vmms_proto::ChildState;
use worker_link::{FromWorker, StopReason, ToWorker};

use crate::description::{OnCrash, Restart};
use crate::log::harmless;
use crate::record::Waiting;

/// How long a worker may take to load a kernel.
const START: Duration = Duration::from_secs(180);
/// How long a worker may take to finish what is on its way to the disks, for which it waits a minute itself, and to flush.
const FLUSH: Duration = Duration::from_secs(90);
/// How long a worker may take to stop the VPs and end what is on its way.
const PAUSE: Duration = Duration::from_secs(60);
/// The first pause before a restart; it doubles up to [`RESTART_MAX`] with each end that comes soon.
const RESTART_MIN: Duration = Duration::from_millis(250);
const RESTART_MAX: Duration = Duration::from_secs(60);
/// Letters of what a worker says of its end.
const TEXT_MAX: usize = 1000;
/// A child that ran so long did not end soon.
pub const SOON: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it to end within so many seconds, and then in good order all the same.
    Stop(u32),
    /// Somebody wants it to end now.
    Kill,
    /// Somebody wants it to stand still.
    Pause,
    /// Somebody wants it to go on.
    Resume,
    /// Partition and worker are there.
    Built,
    /// They are not, or not completely.
    BuildFailed(String),
    /// The worker said something.
    Said(FromWorker),
    /// The worker is gone.
    WorkerGone,
    /// The time that was set is over.
    Time,
    /// Everything was taken apart. It had run for so long.
    Gone(Duration),
    /// It could not be taken apart.
    Stuck(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make partition and worker: [`Event::Built`] or [`Event::BuildFailed`] follows.
    Build,
    /// Say something to the worker.
    Tell(ToWorker),
    /// End the worker and take the partition apart: [`Event::Gone`] or [`Event::Stuck`] follows.
    TakeApart,
    /// [`Event::Time`] after so long, instead of what was set before.
    Wake(Duration),
    /// No [`Event::Time`].
    NoWake,
    /// To tell all who wait why they need not.
    Refuse(String),
}

/// Where a child is in its life.
#[derive(Clone, Debug)]
pub struct Life {
    state: ChildState,
    /// What follows an end that nobody asked for.
    pub restart: Restart,
    /// What follows a crash that its kernel reports.
    pub on_crash: OnCrash,
    /// Times it was started.
    pub starts: u32,
    /// Why it ended the last time.
    pub last_end: Option<String>,
    /// Whether it is to be started again when it is gone.
    goes_on: bool,
    /// The worker was told to stop, so the button will not help any more.
    is_flushing: bool,
    /// It is switched off because its kernel reported a crash.
    has_crashed: bool,
    /// Ends that came soon, in a row.
    pub early_ends: u32,
}

impl Life {
    /// Of a child that does not exist yet.
    pub const fn new(restart: Restart) -> Self {
        Self {
            state: ChildState::Stopped,
            restart,
            on_crash: OnCrash::Continue,
            starts: 0,
            last_end: None,
            goes_on: false,
            is_flushing: false,
            has_crashed: false,
            early_ends: 0,
        }
    }

    /// Of a child that a daemon before this one made. What its worker says tells the rest.
    pub fn adopted(restart: Restart, starts: u32) -> Self {
        Self {
            state: ChildState::Starting,
            starts,
            ..Self::new(restart)
        }
    }

    /// Of a child that waited for its restart when a daemon before this one ended. It waits again.
    pub fn waiting(waiting: &Waiting) -> Self {
        Self {
            state: ChildState::Waiting,
            on_crash: waiting.description.on_crash,
            starts: waiting.starts,
            last_end: waiting.last_end.clone(),
            early_ends: waiting.early_ends,
            ..Self::new(waiting.description.restart)
        }
    }

    /// How long it waits before it starts again.
    pub fn pause(&self) -> Duration {
        let doubled = RESTART_MIN.saturating_mul(1 << self.early_ends.saturating_sub(1).min(16));
        doubled.min(RESTART_MAX)
    }

    /// What it is doing.
    pub const fn state(&self) -> ChildState {
        self.state
    }

    /// Takes note of an event.
    ///
    /// # Errors
    /// Why somebody's wish cannot be met; nothing changed.
    pub fn on(&mut self, event: Event) -> Result<Vec<Action>, String> {
        use ChildState as S;
        Ok(match (event, self.state) {
            (Event::Start, S::Stopped | S::Waiting) => self.build(),
            (Event::Start, S::Stuck) => {
                return Err(
                    "what is left of it could not be taken apart; `kill` tries again".into(),
                );
            }
            (Event::Start, state) => return Err(format!("it is {state}, not stopped")),

            (Event::Stop(seconds), S::Running) if seconds > 0 => {
                self.state = S::Stopping;
                self.is_flushing = false;
                let patience = Duration::from_secs(seconds.into());
                vec![Action::Tell(ToWorker::PowerButton), Action::Wake(patience)]
            }
            (Event::Stop(0), S::Stopping) if !self.is_flushing => self.flush(),
            (Event::Stop(_), S::Running | S::Pausing | S::Paused) => self.flush(),
            (Event::Stop(_) | Event::Kill, S::Stopped) => vec![],
            (Event::Stop(_) | Event::Kill, S::Waiting) => {
                self.state = S::Stopped;
                vec![Action::NoWake]
            }
            (Event::Stop(_), S::Stopping) => {
                self.has_crashed = false;
                vec![]
            }
            (Event::Stop(_) | Event::Kill, S::Ending) => {
                self.goes_on = false;
                vec![]
            }
            (Event::Stop(_), S::Stuck) => return Err("only `kill` can help it".into()),
            (Event::Stop(_) | Event::Kill, _) => self.end("it was switched off".into(), false),

            (Event::Pause, S::Running) => {
                self.state = S::Pausing;
                vec![Action::Tell(ToWorker::Pause), Action::Wake(PAUSE)]
            }
            (Event::Pause, S::Pausing | S::Paused) => vec![],
            (Event::Pause, state) => return Err(format!("it is {state}, not running")),
            (Event::Resume, S::Paused) => {
                vec![Action::Tell(ToWorker::Resume), Action::Wake(PAUSE)]
            }
            (Event::Resume, S::Running) => vec![],
            (Event::Resume, state) => return Err(format!("it is {state}, not paused")),

            (Event::Built, S::Starting) => vec![Action::Wake(START)],
            (Event::BuildFailed(why), S::Starting) => {
                let goes_on = self.restart == Restart::Always && self.starts > 1;
                self.end(why, goes_on)
            }
            (Event::Said(said), state) => self.said(said, state),
            (Event::WorkerGone, S::Stopped | S::Waiting | S::Ending | S::Stuck) => vec![],
            (Event::WorkerGone, S::Stopping) => self.off("it was switched off".into()),
            (Event::WorkerGone, _) => {
                let goes_on = self.restart != Restart::Never;
                self.end("its worker died; `vmctl logs` may tell why".into(), goes_on)
            }

            (Event::Time, S::Starting) => {
                self.end("its worker took too long to load the kernel".into(), false)
            }
            (Event::Time, S::Stopping) if !self.is_flushing => self.flush(),
            (Event::Time, S::Stopping) => {
                self.off("it was switched off: its worker did not stop in time".into())
            }
            (Event::Time, S::Pausing) => {
                self.state = S::Running;
                vec![Action::Tell(ToWorker::Resume)]
            }
            (Event::Time, S::Paused) => {
                let why = "its worker does not let it go on; `vmctl logs` may tell why";
                vec![Action::Refuse(why.into())]
            }
            (Event::Time, S::Waiting) => self.build(),
            (Event::Gone(ran), S::Ending) => self.gone(ran),
            (Event::Stuck(why), S::Ending) => {
                self.state = S::Stuck;
                self.last_end = Some(format!("it could not be taken apart: {why}"));
                vec![Action::NoWake]
            }
            // Late news of what is over.
            (
                Event::Built
                | Event::BuildFailed(_)
                | Event::Time
                | Event::Gone(_)
                | Event::Stuck(_),
                _,
            ) => vec![],
        })
    }

    fn said(&mut self, said: FromWorker, state: ChildState) -> Vec<Action> {
        use ChildState as S;
        match (said, state) {
            (FromWorker::Ready, S::Starting) => vec![Action::Tell(ToWorker::Run)],
            (FromWorker::Running, S::Starting | S::Paused | S::Pausing) => {
                self.state = S::Running;
                vec![Action::NoWake]
            }
            // Also to a daemon that came when it was on its way.
            (FromWorker::Paused, S::Starting | S::Pausing | S::Running) => {
                self.state = S::Paused;
                vec![Action::NoWake]
            }
            (FromWorker::Stopped { reason }, S::Stopping) => self.off(told(&reason)),
            // Somebody who asked for its end, or waits for it to stand still, gets that.
            (FromWorker::Crashed { .. }, S::Running) if self.on_crash != OnCrash::Continue => {
                self.has_crashed = true;
                self.flush()
            }
            (FromWorker::Stopped { reason }, S::Starting | S::Running | S::Pausing | S::Paused) => {
                let goes_on = match self.restart {
                    Restart::Never => false,
                    Restart::OnReset => reason == StopReason::Reset,
                    // A kernel that cannot be loaded will not be loaded the next time.
                    Restart::Always => state != S::Starting,
                };
                self.end(told(&reason), goes_on)
            }
            _ => vec![],
        }
    }

    /// The end of a child that was told to stop.
    fn off(&mut self, why: String) -> Vec<Action> {
        if !self.has_crashed {
            return self.end(why, false);
        }
        let why = format!("its kernel reported a crash: {why}");
        self.end(why, self.on_crash == OnCrash::Restart)
    }

    fn build(&mut self) -> Vec<Action> {
        self.has_crashed = false;
        self.state = ChildState::Starting;
        self.starts = self.starts.saturating_add(1);
        vec![Action::NoWake, Action::Build]
    }

    fn flush(&mut self) -> Vec<Action> {
        self.state = ChildState::Stopping;
        self.is_flushing = true;
        vec![Action::Tell(ToWorker::Stop), Action::Wake(FLUSH)]
    }

    fn end(&mut self, why: String, goes_on: bool) -> Vec<Action> {
        self.state = ChildState::Ending;
        self.last_end = Some(why);
        self.goes_on = goes_on;
        vec![Action::NoWake, Action::TakeApart]
    }

    fn gone(&mut self, ran: Duration) -> Vec<Action> {
        if !self.goes_on {
            self.state = ChildState::Stopped;
            self.early_ends = 0;
            return vec![];
        }
        self.early_ends = if ran < SOON {
            self.early_ends.saturating_add(1)
        } else {
            0
        };
        self.state = ChildState::Waiting;
        vec![Action::Wake(self.pause())]
    }
}

/// An end in words.
fn told(reason: &StopReason) -> String {
    match reason {
        StopReason::PowerOff => "it switched itself off".into(),
        StopReason::Reset => "it reset itself".into(),
        StopReason::TripleFault { vp, rip } => format!("VP {vp} met a triple fault at {rip:#x}"),
        StopReason::Stopped => "it was switched off".into(),
        // A worker may be in its child's hands: this goes to terminals, with that of all other children.
        StopReason::Failed { text } => harmless(text).chars().take(TEXT_MAX).collect(),
    }
}

#[cfg(test)]
mod tests;
