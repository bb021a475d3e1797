//! Both sides of a slot in one world: a child that signals and closes channels, an LP that serves, a worker that sleeps,
//! wakes and dies at any step. In the end a living worker that sleeps has seen everything.

mod common;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use addr::PartitionId;
use common::{Shared, buffer};
use proptest::prelude::*;
use ring::{Contiguous, RingMem};
use ring_proto::Control;
use slot_proto::event::Faults;
use slot_proto::{ChannelKind, Generation, Notice, RelidOnly, Request, SessionOver, Status};
use slots::{
    Attachment, Channel, Client, Doorbell, Events, Generations, Incoming, NoticeError, NoticeQueue,
    SendError, SignalPage, Ticket, Turn, Watcher, collect_signals,
};
use tlfs::wire::Zero;
use vmbus_proto::Relid;

/// More than the queue of notices holds.
const CHANNELS: usize = 300;

const ATTACHMENT: Attachment = Attachment {
    partition: PartitionId::new(5),
    has_vmbus: true,
    is_finalized: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Quiet,
    Due,
    Unanswered,
}

#[derive(Clone, Debug)]
enum Step {
    /// The child writes into the ring of a channel and signals.
    Signal(usize),
    /// The child closes channels from the first on, so many.
    Close(usize, usize),
    Fault,
    /// One step of the worker, if it is alive and awake.
    Worker,
    /// The worker signals a channel of the child.
    Answer(usize),
    /// The hypervisor completes a request that it took before: which of them.
    Complete(usize),
    /// A work item of some LP.
    Serve,
    Die,
    Attach,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channel = 0..CHANNELS;
    proptest::collection::vec(
        prop_oneof![
            4 => channel.clone().prop_map(Step::Signal),
            2 => (channel.clone(), 1usize..300).prop_map(|(first, count)| Step::Close(first, count)),
            1 => Just(Step::Fault),
            12 => Just(Step::Worker),
            2 => channel.prop_map(Step::Answer),
            4 => any::<usize>().prop_map(Step::Complete),
            2 => Just(Step::Serve),
            1 => Just(Step::Die),
            1 => Just(Step::Attach),
        ],
        1..300,
    )
}

/// Where the worker is. Between any two of these, anything may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Greeting,
    Looking,
    Flushing,
    Arming,
    LookingAgain,
    Asleep,
}

struct Worker<'a> {
    at: At,
    client: Client<Contiguous<'a>>,
    watcher: Watcher<&'a [AtomicU64]>,
    page: SignalPage<&'a [AtomicU64]>,
    has_signals: bool,
    /// Signalled since the last interrupt and the last notice.
    is_armed: bool,
    /// Notices to be answered, and answers under way.
    notices: Vec<usize>,
    answers: HashMap<u64, usize>,
}

struct World<'a> {
    shared: &'a Shared,
    hv: Channel<Contiguous<'a>>,
    events: Option<Events<&'a [AtomicU64]>>,
    queue: NoticeQueue,
    doorbell: Doorbell,
    generations: Generations,
    /// Requests taken, with the session they were taken in.
    tickets: Vec<(Ticket, usize, Generation)>,
    told: Vec<Told>,
    worker: Option<Worker<'a>>,
    /// The counter of the uio device moved since it was read.
    interrupt: bool,
    written: Vec<u32>,
    read: Vec<u32>,
    closed: u32,
    answered: u32,
    faults: bool,
    left: Vec<bool>,
}

impl<'a> World<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            hv: shared.open(ChannelKind::Slot),
            events: None,
            queue: NoticeQueue::new(),
            doorbell: Doorbell::default(),
            generations: Generations::new(),
            tickets: Vec::new(),
            told: vec![Told::Quiet; CHANNELS],
            worker: None,
            interrupt: false,
            written: vec![0; CHANNELS],
            read: vec![0; CHANNELS],
            closed: 0,
            answered: 0,
            faults: false,
            left: vec![false; CHANNELS],
        }
    }

    fn ring(&mut self) {
        self.interrupt |= self.doorbell.ring(self.hv.downstream());
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Signal(channel) => {
                self.written[channel] += 1;
                if let Some(events) = &self.events {
                    events.child_signalled(Relid(channel as u32));
                    self.ring();
                }
            }
            Step::Close(first, count) => {
                for told in self.told.iter_mut().skip(first).take(count) {
                    if *told == Told::Quiet {
                        *told = Told::Due;
                        self.closed += 1;
                    }
                }
                self.tell();
            }
            Step::Fault => {
                self.faults = true;
                if let Some(events) = &self.events {
                    events.fault(Faults::RESET_ASKED);
                    self.ring();
                }
            }
            Step::Worker => self.work(),
            Step::Answer(channel) => {
                if let Some(worker) = self
                    .worker
                    .as_mut()
                    .filter(|worker| worker.at == At::Looking)
                {
                    worker.page.signal(Relid(channel as u32));
                    worker.has_signals = true;
                    self.left[channel] = true;
                }
            }
            Step::Complete(which) => {
                if !self.tickets.is_empty() {
                    let taken = self.tickets.swap_remove(which % self.tickets.len());
                    self.complete(taken);
                    self.flush();
                }
            }
            Step::Serve => {
                self.serve();
            }
            Step::Die => {
                if self.worker.take().is_some() {
                    self.hv.detach(SessionOver::Detached);
                    let _ = self.hv.flush(&self.doorbell);
                    self.events = None;
                }
            }
            Step::Attach => {
                if self.worker.is_none() {
                    self.attach();
                }
            }
        }
    }

    fn attach(&mut self) {
        let generation = self.generations.fresh().unwrap();
        self.hv.attach(generation);
        self.doorbell.reset();
        self.interrupt = false;
        let events = Events::attach(&self.shared.area[..], generation);
        // The truth as a new worker must see it.
        (0..CHANNELS as u32).for_each(|relid| events.child_signalled(Relid(relid)));
        if self.faults {
            events.fault(Faults::RESET_ASKED);
        }
        self.events = Some(events);
        self.queue = NoticeQueue::new();
        for told in &mut self.told {
            if *told == Told::Unanswered {
                *told = Told::Due;
            }
        }
        self.tell();
        let shared = self.shared;
        let mut client =
            Client::new(generation, shared.upstream.mem(), shared.downstream.mem()).unwrap();
        client.send(&Client::<Contiguous<'_>>::hello(8)).unwrap();
        self.left.fill(false);
        self.worker = Some(Worker {
            at: At::Greeting,
            client,
            watcher: Watcher::new(&shared.area[..], generation).unwrap(),
            page: SignalPage::new(&shared.signals[..], generation),
            has_signals: false,
            is_armed: false,
            notices: Vec::new(),
            answers: HashMap::new(),
        });
    }

    /// Queues the notices that are due and have room.
    fn tell(&mut self) {
        let Some(events) = &self.events else { return };
        let mut has_told = false;
        for (channel, told) in self.told.iter_mut().enumerate() {
            if *told == Told::Due {
                match self
                    .queue
                    .push(events, &Notice::Close(Relid(channel as u32)))
                {
                    Ok(()) => *told = Told::Unanswered,
                    Err(NoticeError::Full) => break,
                    Err(NoticeError::BadHead) => panic!("an honest head"),
                }
                has_told = true;
            }
        }
        if has_told {
            self.ring();
        }
    }

    /// A request of a former session changes nothing, and its completion goes to nobody.
    fn complete(&mut self, (ticket, channel, generation): (Ticket, usize, Generation)) {
        if generation == self.hv.generation() {
            assert_eq!(self.told[channel], Told::Unanswered);
            self.told[channel] = Told::Quiet;
        }
        let body = Status::of(Ok(())).encode();
        assert!(self.hv.complete(ticket, &body, &[]));
        assert!(!self.hv.complete(ticket, &body, &[]));
        // Requests may have waited for this.
        self.serve();
    }

    fn flush(&mut self) -> bool {
        let flushed = self.hv.flush(&self.doorbell);
        self.interrupt |= flushed.interrupts;
        flushed.has_more
    }

    fn serve(&mut self) {
        let mut buffer = buffer();
        loop {
            let attachment = self.worker.is_some().then_some(&ATTACHMENT);
            match self.hv.next(&mut buffer, attachment, &mut self.generations) {
                Turn::Run(ticket, Request::CloseDone(name)) => {
                    let generation = self.hv.generation();
                    self.tickets
                        .push((ticket, name.relid.0 as usize, generation));
                }
                Turn::Answered(_) => {}
                Turn::Idle | Turn::Blocked(_) => {
                    if !self.flush() {
                        return;
                    }
                }
                turn => panic!("{turn:?}"),
            }
        }
    }

    /// `write(fd, 1)`.
    fn signal_slot(&mut self) {
        self.hv.downstream().set_control(Control::InterruptMask, 0);
        self.doorbell.signalled(self.hv.downstream());
        let left = &mut self.left;
        collect_signals(&&self.shared.signals[..], self.hv.generation(), |relid| {
            assert!(
                std::mem::take(&mut left[relid.0 as usize]),
                "a signal that nobody left"
            );
        });
        self.tell();
        self.serve();
    }

    fn work(&mut self) {
        let Some(worker) = self.worker.as_mut() else {
            return;
        };
        match worker.at {
            At::Greeting => {
                worker.at = At::Looking;
                if worker.client.flush().is_needed() {
                    self.signal_slot();
                }
            }
            At::Looking => {
                let news = worker.watcher.take_news();
                if news.faults.contains(Faults::RESET_ASKED) {
                    self.faults = false;
                }
                let (read, written) = (&mut self.read, &self.written);
                worker
                    .watcher
                    .take_signals(|relid| read[relid.0 as usize] = written[relid.0 as usize]);
                while let Some(notice) = worker.watcher.next_notice().unwrap() {
                    let Notice::Close(relid) = notice else {
                        panic!("{notice:?}")
                    };
                    let channel = relid.0 as usize;
                    assert!(!worker.notices.contains(&channel), "one notice at a time");
                    // (The completion of an answer may be seen later than the next notice.)
                    worker.notices.push(channel);
                    worker.is_armed = false;
                }
                let mut buffer = buffer();
                while let Some(incoming) = worker.client.next(&mut buffer).unwrap() {
                    let Incoming::Completion(completion) = incoming else {
                        panic!("{incoming:?}")
                    };
                    assert_eq!(completion.result, Ok(()));
                    if worker.answers.remove(&completion.transaction).is_some() {
                        self.answered += 1;
                    }
                }
                while let Some(&channel) = worker.notices.last() {
                    let relid = Relid(channel as u32);
                    let request = Request::CloseDone(RelidOnly {
                        relid,
                        reserved: Zero,
                    });
                    match worker.client.send(&request) {
                        Ok(transaction) => {
                            worker.notices.pop();
                            worker.answers.insert(transaction, channel);
                        }
                        Err(SendError::TooMany | SendError::Full) => break,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                worker.at = At::Flushing;
            }
            At::Flushing => {
                worker.at = At::Arming;
                let is_needed = worker.client.flush().is_needed();
                if is_needed || std::mem::take(&mut worker.has_signals) {
                    worker.is_armed = true;
                    self.signal_slot();
                }
            }
            At::Arming => {
                worker.at = At::LookingAgain;
                worker.client.rest();
                if std::mem::take(&mut worker.has_signals) || !worker.is_armed {
                    worker.is_armed = true;
                    self.signal_slot();
                }
            }
            At::LookingAgain => {
                let has_more = worker.client.has_more().unwrap() || worker.watcher.has_news();
                worker.at = if has_more {
                    worker.client.attend();
                    At::Looking
                } else {
                    At::Asleep
                };
            }
            At::Asleep => {
                if std::mem::take(&mut self.interrupt) {
                    worker.is_armed = false;
                    worker.at = At::Looking;
                    worker.client.attend();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_worker_that_sleeps_has_seen_everything(steps in steps()) {
        let shared = Shared::new();
        let mut world = World::new(&shared);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Attach);
        // The child and the worker's own wishes rest; what is left is worked off without any signal from outside.
        for _ in 0..100_000 {
            let at = world.worker.as_ref().unwrap().at;
            if at == At::Asleep && !world.interrupt && world.tickets.is_empty() {
                break;
            }
            world.step(&Step::Complete(0));
            world.step(&Step::Worker);
        }
        let worker = world.worker.as_ref().unwrap();
        prop_assert_eq!(worker.at, At::Asleep);
        prop_assert_eq!(worker.client.outstanding(), 0);
        prop_assert!(worker.notices.is_empty() && worker.answers.is_empty());
        prop_assert!(world.told.iter().all(|told| *told == Told::Quiet));
        prop_assert_eq!(&world.read, &world.written);
        prop_assert!(!world.faults);
        prop_assert!(world.left.iter().all(|left| !left));
        prop_assert!(!world.hv.is_busy());
        prop_assert!(world.answered <= world.closed);
    }
}
