//! What can be asked of the hypervisor through its slot, and garbage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use addr::PartitionId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slot_proto::{
    Attach, AttachFlags, Call, Detach, Generation, List, MAX_PACKET_BYTES, Request, SlotAdd, Tag,
};
use slots::{Client, Incoming};
use tlfs::{CallCode, Control};
use uio::{Channel, Mapping, Ring};
use worker_link::pages;

use crate::{Loot, forbidden, tell, text};

/// Its end of the slot, while the good worker is stopped.
struct Slot {
    channel: Arc<Channel>,
    client: Client<Ring>,
}

impl Slot {
    fn new(loot: &Loot, generation: u32) -> Result<Self, String> {
        let device = loot.file(loot.start.slot_fd).try_clone_to_owned();
        let channel = Channel::new(device.map_err(text)?).map_err(text)?;
        let (up, down) = (channel.upstream(), channel.downstream());
        let client = Client::resume(Generation(generation), up, down, 1 << 40)
            .map_err(|_| "rings of no use".to_owned())?;
        Ok(Self {
            channel: Arc::new(channel),
            client,
        })
    }

    /// What the hypervisor says to a request.
    fn ask(&mut self, request: &Request<'_>) -> Result<(), String> {
        let sent = self.client.send(request);
        let transaction = sent.map_err(|error| format!("not sent: {error:?}"))?;
        let _ = self.client.flush();
        let mut buffer = [0; MAX_PACKET_BYTES];
        for _ in 0..100 {
            self.channel.signal().map_err(text)?;
            while let Some(incoming) = self
                .client
                .next(&mut buffer)
                .map_err(|error| format!("{error:?}"))?
            {
                if let Incoming::Completion(done) = incoming
                    && done.transaction == transaction
                {
                    return done.result.map_err(|error| format!("{error:?}"));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("no answer".to_owned())
    }

    fn call(&mut self, code: CallCode, reps: u64, input: &[u8]) -> Result<(), String> {
        let control = Control(Control::simple(code).0 | reps << 32);
        self.ask(&Request::Call(Call { control, input }))
    }
}

/// Calls about registers and memory of a partition; the first eight bytes of their input name it.
const OF_OTHERS: [(CallCode, u64); 10] = [
    (CallCode::GET_VP_REGISTERS, 1),
    (CallCode::SET_VP_REGISTERS, 1),
    (CallCode::TRANSLATE_VIRTUAL_ADDRESS, 0),
    (CallCode::READ_GPA, 0),
    (CallCode::WRITE_GPA, 0),
    (CallCode::ASSERT_VIRTUAL_INTERRUPT, 0),
    (CallCode::CLEAR_VIRTUAL_INTERRUPT, 0),
    (CallCode::GET_PARTITION_PROPERTY, 0),
    (CallCode::SET_PARTITION_PROPERTY, 0),
    (CallCode::GET_GPA_PAGES_ACCESS_STATES, 1),
];

/// Calls that name frames or change who owns what: the daemon's, about any partition.
const OF_THE_DAEMON: [(CallCode, u64); 18] = [
    (CallCode::CREATE_PARTITION, 0),
    (CallCode::INITIALIZE_PARTITION, 0),
    (CallCode::FINALIZE_PARTITION, 0),
    (CallCode::DELETE_PARTITION, 0),
    (CallCode::GET_NEXT_CHILD_PARTITION, 0),
    (CallCode::DEPOSIT_MEMORY, 1),
    (CallCode::WITHDRAW_MEMORY, 1),
    (CallCode::MAP_GPA_PAGES, 1),
    (CallCode::UNMAP_GPA_PAGES, 1),
    (CallCode::CREATE_VP, 0),
    (CallCode::DELETE_VP, 0),
    (CallCode::MAP_STATS_PAGE, 0),
    (CallCode::CREATE_PORT, 0),
    (CallCode::DELETE_PORT, 0),
    (CallCode::CONNECT_PORT, 0),
    (CallCode::DISCONNECT_PORT, 0),
    (CallCode::MAP_VP_STATE_PAGE, 0),
    (CallCode::UNMAP_VP_STATE_PAGE, 0),
];

pub fn attack(loot: &Loot) {
    // Two at one ring would be garbage, which comes later.
    let _ = kill(Pid::from_raw(loot.good), Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(1));
    match Slot::new(loot, loot.start.generation.wrapping_sub(1)) {
        Ok(mut slot) => {
            let own = registers(loot.start.partition);
            let result = slot.call(CallCode::GET_VP_REGISTERS, 1, &own);
            forbidden("the session before", result);
            // What was read is shown to the hypervisor, and where the next one begins.
            let _ = slot.client.flush();
        }
        Err(why) => eprintln!("attack: the slot cannot be used: {why}"),
    }
    match Slot::new(loot, loot.start.generation) {
        Ok(mut slot) => {
            ask(loot, &mut slot);
            let _ = slot.client.flush();
        }
        Err(why) => eprintln!("attack: the slot cannot be used: {why}"),
    }
    let _ = kill(Pid::from_raw(loot.good), Signal::SIGCONT);
}

/// Partition, VP and the name of a register; zeros where another call has something else.
fn call_input(partition: u64) -> Vec<u8> {
    let mut input = vec![0; 64];
    for (to, from) in input.iter_mut().zip(partition.to_le_bytes()) {
        *to = from;
    }
    input
}

/// VP 0, and RAX.
fn registers(partition: u64) -> Vec<u8> {
    let mut input = call_input(partition);
    input.truncate(16);
    input.extend(0x0002_0000_u32.to_le_bytes());
    input
}

/// How often each answer came: the log has no room for all.
#[derive(Default)]
struct Answers(BTreeMap<String, u32>);

impl Answers {
    fn add(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => forbidden(what, Ok(())),
            Err(why) => *self.0.entry(why).or_default() += 1,
        }
    }

    fn tell(self, what: &str) {
        for (why, count) in self.0 {
            forbidden(&format!("{what}, {count} times"), Err(why));
        }
    }
}

/// The numbers that the hypervisor has given out lie close to its own, or in steps of their lowest bits.
fn others(own: u64) -> impl Iterator<Item = u64> {
    let near = own.saturating_sub(16)..own + 16;
    let steps = (0..own + 0x4000).step_by(0x400);
    let steps = steps.flat_map(|id| id..id + 4);
    near.chain(steps).chain(0..64).filter(move |id| *id != own)
}

fn ask(loot: &Loot, slot: &mut Slot) {
    let own = loot.start.partition;
    let result = slot.call(CallCode::GET_VP_REGISTERS, 1, &registers(own));
    tell("a register of its own", result);
    let mut answers = Answers::default();
    for partition in others(own) {
        for (code, reps) in OF_OTHERS {
            let input = match code {
                CallCode::GET_VP_REGISTERS => registers(partition),
                _ => call_input(partition),
            };
            let what = format!("call {:#x} about partition {partition:#x}", code.0);
            answers.add(&what, slot.call(code, reps, &input));
        }
    }
    answers.tell("calls about others");
    let mut answers = Answers::default();
    for partition in others(own).chain([own, u64::MAX]) {
        for (code, reps) in OF_THE_DAEMON {
            let what = format!("call {:#x} with partition {partition:#x}", code.0);
            answers.add(&what, slot.call(code, reps, &call_input(partition)));
        }
    }
    answers.tell("calls of the daemon's");
    for (name, request) in [
        (
            "one more slot",
            Request::SlotAdd(SlotAdd {
                number: 60,
                ..SlotAdd::default()
            }),
        ),
        ("the list of partitions", Request::List(List::default())),
        (
            "a tag",
            Request::Tag(Tag {
                partition: PartitionId::new(own),
                tag: 1,
            }),
        ),
        (
            "the end of another's session",
            Request::Detach(Detach {
                slot: loot.start.slot ^ 1,
                generation: Generation(loot.start.generation),
            }),
        ),
        (
            "a slot of one's own",
            Request::Attach(Attach {
                slot: 5,
                flags: AttachFlags::empty(),
                partition: PartitionId::new(own),
                event_area: addr::Gpa::new(0x10_0000),
                signal_page: addr::Gpa::new(0x20_0000),
            }),
        ),
    ] {
        forbidden(name, slot.ask(&request));
    }
}

/// Everything that the hypervisor reads of this worker becomes garbage.
pub fn garbage(loot: &Loot) {
    let slot = loot.file(loot.start.slot_fd);
    let pages = Mapping::lazily(
        loot.file(loot.start.pages_fd),
        0,
        pages::EVENT_AREA_BYTES + 4096,
    );
    if let Ok(pages) = &pages {
        for word in pages.words() {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }
    let Ok(rings) = Mapping::new(slot, 0, 34 * 4096) else {
        return;
    };
    let Ok(device) = slot.try_clone_to_owned() else {
        return;
    };
    let Ok(channel) = Channel::new(device) else {
        return;
    };
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..2000 {
        for word in rings
            .words()
            .iter()
            .take(if round % 2 == 0 { 4 } else { 17 * 512 })
        {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.store(seed, Ordering::Relaxed);
        }
        if let Err(error) = channel.signal() {
            tell("garbage in the ring", Err(text(error)));
            return;
        }
    }
    tell("garbage in the ring", Ok(()));
}
