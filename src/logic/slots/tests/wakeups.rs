//! Orders in which accesses of hypervisor and worker can take effect, by `loom`: no event, notice, request or completion
//! waits for a wake-up that does not come. A worker or hypervisor that sleeps for ever is a deadlock, which `loom`
//! reports.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as PlainU64, Ordering};

use loom::model::Builder;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
use loom::thread;
use ring::RingMem;
use ring_proto::Control;
use slot_proto::event::{AREA_WORDS, NOTICES_WORD};
use slot_proto::{ChannelKind, Generation, MAX_PACKET_BYTES, Notice, Request, Status};
use slots::{
    Channel, Client, Doorbell, Events, Flag, Generations, Identity, Incoming, NoticeQueue,
    SharedWords, Turn, Watcher,
};
use vmbus_proto::Relid;

/// Words that the two sides use without another order between them; the rest of the area is ordered by these.
const RACED: [usize; 7] = [8, 9, 16, 17, 32, 128, 136];

struct Area {
    raced: [AtomicU64; RACED.len()],
    plain: Vec<PlainU64>,
}

impl Area {
    fn new() -> Self {
        Self {
            raced: std::array::from_fn(|_| AtomicU64::new(0)),
            plain: (0..AREA_WORDS).map(|_| PlainU64::new(0)).collect(),
        }
    }

    fn raced(&self, index: usize) -> Option<&AtomicU64> {
        RACED
            .iter()
            .position(|raced| *raced == index)
            .map(|at| &self.raced[at])
    }
}

impl SharedWords for Area {
    fn load(&self, index: usize) -> u64 {
        match self.raced(index) {
            Some(word) => word.load(Ordering::Acquire),
            None => self.plain[index].load(Ordering::Acquire),
        }
    }
    fn store(&self, index: usize, value: u64) {
        match self.raced(index) {
            Some(word) => word.store(value, Ordering::Release),
            None => self.plain[index].store(value, Ordering::Release),
        }
    }
    fn set_bits(&self, index: usize, bits: u64) {
        assert!(index < NOTICES_WORD);
        let word = self.raced(index).expect("bits are set in raced words only");
        word.fetch_or(bits, Ordering::AcqRel);
    }
    fn take(&self, index: usize) -> u64 {
        let word = self.raced(index).expect("raced words only are taken");
        word.swap(0, Ordering::AcqRel)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A ring whose control page is raced for and whose data is ordered by it.
struct Ring {
    control: [AtomicU32; 6],
    data: Vec<PlainU64>,
}

impl Ring {
    fn new(words: usize) -> Self {
        let ring = Self {
            control: std::array::from_fn(|_| AtomicU32::new(0)),
            data: (0..words).map(|_| PlainU64::new(0)).collect(),
        };
        ring.set_control(Control::Features, 1);
        ring
    }
}

const fn place(field: Control) -> usize {
    match field {
        Control::Features => 4,
        Control::Attended => 5,
        field => field.word(),
    }
}

impl RingMem for Ring {
    fn data_bytes(&self) -> u32 {
        self.data.len() as u32 * 8
    }
    fn control(&self, field: Control) -> u32 {
        self.control[place(field)].load(Ordering::Acquire)
    }
    fn set_control(&self, field: Control, value: u32) {
        self.control[place(field)].store(value, Ordering::Release);
    }
    fn word(&self, at: u32) -> u64 {
        self.data[at as usize / 8].load(Ordering::Relaxed)
    }
    fn set_word(&self, at: u32, value: u64) {
        self.data[at as usize / 8].store(value, Ordering::Relaxed);
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

struct Rung(AtomicBool);

impl Flag for Rung {
    fn set(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }
    fn clear(&self) {
        self.0.swap(false, Ordering::SeqCst);
    }
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

struct Slot {
    area: Area,
    downstream: Ring,
    doorbell: Doorbell<Rung>,
    interrupt: Notify,
}

impl Slot {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            area: Area::new(),
            downstream: Ring::new(8),
            doorbell: Doorbell::new(Rung(AtomicBool::new(false))),
            interrupt: Notify::new(),
        })
    }

    fn ring(&self) {
        if self.doorbell.ring(&self.downstream) {
            self.interrupt.notify();
        }
    }

    /// What `write(fd, 1)` does: the kernel clears the mask, and the hypervisor learns of it.
    fn arm(&self) {
        self.downstream.set_control(Control::InterruptMask, 0);
        fence(Ordering::SeqCst);
        self.doorbell.signalled(&self.downstream);
    }
}

/// Sleeps and looks until it has seen `signals` different channels and `notices` notices.
fn watch(slot: &Slot, signals: u64, notices: u64, looks_again: bool) {
    let mut watcher = Watcher::new(&slot.area, Generation(1)).unwrap();
    let (mut seen, mut told, mut is_armed) = (0u64, 0, false);
    loop {
        slot.downstream.set_control(Control::Attended, 1);
        watcher.take_news();
        watcher.take_signals(|relid| seen |= 1 << relid.0);
        while let Some(notice) = watcher.next_notice().unwrap() {
            told += 1;
            assert_eq!(notice, Notice::Close(Relid(told as u32)));
        }
        if u64::from(seen.count_ones()) == signals && told == notices {
            return;
        }
        slot.downstream.set_control(Control::Attended, 0);
        if !is_armed {
            slot.arm();
            is_armed = true;
        }
        if !(looks_again && watcher.has_news()) {
            slot.interrupt.wait();
            is_armed = false;
        }
    }
}

#[test]
fn no_signal_of_two_lps_is_missed() {
    check(2, || {
        let slot = Slot::new();
        let events = Events::attach(&slot.area, Generation(1));
        events.child_signalled(Relid(1));
        slot.ring();
        let lps = [1, 2].map(|relid| {
            let slot = slot.clone();
            thread::spawn(move || {
                // Attached before: only the handle is made again.
                let events = Events::resume(&slot.area);
                events.child_signalled(Relid(relid));
                slot.ring();
            })
        });
        watch(&slot, 2, 0, true);
        lps.into_iter().for_each(|lp| lp.join().unwrap());
    });
}

fn notices(looks_again: bool) {
    check(3, move || {
        let slot = Slot::new();
        let lp = {
            Events::attach(&slot.area, Generation(1));
            let slot = slot.clone();
            thread::spawn(move || {
                let (events, mut queue) = (Events::resume(&slot.area), NoticeQueue::new());
                for relid in 1..=2 {
                    queue.push(&events, &Notice::Close(Relid(relid))).unwrap();
                    slot.ring();
                }
            })
        };
        watch(&slot, 0, 2, looks_again);
        lp.join().unwrap();
    });
}

#[test]
fn no_notice_is_missed() {
    notices(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_worker_that_does_not_look_again_misses_a_notice() {
    notices(false);
}

struct Pair {
    upstream: Ring,
    downstream: Ring,
    doorbell: Doorbell<Rung>,
    /// Signal to the hypervisor, interrupt to user space.
    signal: Notify,
    interrupt: Notify,
}

/// The hypervisor on an LP of its own: works off requests at each signal, until `requests` were answered.
fn serve(pair: &Pair, requests: u32, looks_again: bool) {
    let identity = Identity {
        kind: ChannelKind::Control,
        slot: 0,
        boot_id: 1,
        features: 0,
    };
    let mut channel = Channel::open(identity, &pair.upstream, &pair.downstream).unwrap();
    let (mut generations, mut buffer, mut answered) =
        (Generations::new(), [0; MAX_PACKET_BYTES], 0);
    loop {
        pair.doorbell.signalled(&pair.downstream);
        loop {
            match channel.next(&mut buffer, None, &mut generations) {
                Turn::Run(ticket, _) => {
                    answered += 1;
                    assert!(channel.complete(ticket, &Status::of(Ok(())).encode(), &[]));
                }
                Turn::Answered(_) => answered += 1,
                Turn::Idle | Turn::Blocked(_) => {
                    let flushed = channel.flush(&pair.doorbell);
                    if flushed.interrupts {
                        pair.interrupt.notify();
                    }
                    if !(looks_again && flushed.has_more) {
                        break;
                    }
                }
                turn => panic!("{turn:?}"),
            }
        }
        if answered == requests {
            return;
        }
        pair.signal.wait();
    }
}

/// HELLO, then two requests, each shown by itself.
fn ask(pair: &Pair) {
    let mut client = Client::new(Generation::NONE, &pair.upstream, &pair.downstream).unwrap();
    let mut buffer = [0; MAX_PACKET_BYTES];
    for requests in [&[Client::<&Ring>::hello(4)][..], &[LIST, LIST]] {
        for request in requests {
            client.send(request).unwrap();
            if client.flush().is_needed() {
                pair.signal.notify();
            }
        }
        while client.outstanding() != 0 {
            match client.next(&mut buffer).unwrap() {
                Some(Incoming::Completion(completion)) => assert_eq!(completion.result, Ok(())),
                Some(incoming) => panic!("{incoming:?}"),
                None => {
                    // To arm is to signal. Here a signal is given only where the rules of the ring ask for it: the mask
                    // stays 0, and waking arms the doorbell.
                    if client.flush().is_needed() {
                        pair.signal.notify();
                    }
                    if !client.has_more().unwrap() {
                        pair.interrupt.wait();
                        pair.doorbell.signalled(&pair.downstream);
                    }
                }
            }
        }
    }
}

const LIST: Request<'static> = Request::List(slot_proto::List {
    start: 0,
    reserved: tlfs::wire::Zero,
});

fn talk(looks_again: bool) {
    check(2, move || {
        let pair = Arc::new(Pair {
            upstream: Ring::new(2048),
            downstream: Ring::new(2048),
            doorbell: Doorbell::new(Rung(AtomicBool::new(false))),
            signal: Notify::new(),
            interrupt: Notify::new(),
        });
        let hypervisor = {
            let pair = pair.clone();
            thread::spawn(move || serve(&pair, 3, looks_again))
        };
        ask(&pair);
        hypervisor.join().unwrap();
    });
}

#[test]
fn no_request_and_no_completion_is_missed() {
    talk(true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_hypervisor_that_does_not_look_again_misses_a_request() {
    talk(false);
}
