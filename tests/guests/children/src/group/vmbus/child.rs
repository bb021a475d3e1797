//! Children's own servers, as far as they go without a worker.

use addr::PartitionId;
use machine::verdict::{check, equal};
use tlfs::HvError;
use tlfs::msr;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName;

use super::conversation;
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::intercept::Intercept;
use crate::client::partition::{Child, USUAL, withdraw_frames};
use crate::client::vp::set_registers;
use crate::group::{destroy, need, refused};
use vmbus_client::{Client, POST, SIGNAL, SINT, Said, Wire, post_input};

/// What the child's program is asked to do.
mod order {
    pub const POST: u64 = 1;
    pub const TAKE: u64 = 2;
    pub const SIGNAL: u64 = 3;
    pub const FLAG: u64 = 4;
}

/// Vector of the SINT; interrupts stay off.
const VECTOR: u64 = 0x61;
/// Results from here on are a message.
const MESSAGE: usize = 64;
/// TSC ticks that a message is waited for.
const PATIENCE: u64 = 20_000_000;

/// Does what the parent asks, one order after another.
extern "sysv64" fn obey(shared: &'static Shared) -> ! {
    let slot = layout::MESSAGES + u64::from(SINT) * 256;
    runtime::write32(0xFEE0_00F0, 0x1FF);
    runtime::wrmsr(msr::SIMP, layout::MESSAGES | 1);
    runtime::wrmsr(msr::SIEFP, layout::EVENTS | 1);
    runtime::wrmsr(msr::SINT0 + u32::from(SINT), VECTOR);
    runtime::wrmsr(msr::SCONTROL, 1);
    loop {
        runtime::pause(1);
        let (one, two) = (shared.arg(1), shared.arg(2));
        let result = match shared.arg(0) {
            order::POST => runtime::call(POST.0.into(), layout::CALL_INPUT, 0),
            order::TAKE => {
                let came = runtime::spin_until(PATIENCE, || runtime::read(slot) as u32 != 0);
                if came {
                    for at in 0..32 {
                        shared.set(MESSAGE + at, runtime::read(slot + at as u64 * 8));
                    }
                    runtime::write32(slot, 0);
                    runtime::wrmsr(msr::EOM, 0);
                }
                came.into()
            }
            order::SIGNAL => runtime::call(u64::from(SIGNAL.0) | 1 << 16, one | two << 32, 0),
            order::FLAG => {
                let at = layout::EVENTS + u64::from(SINT) * 256 + one / 64 * 8;
                let word = runtime::read(at);
                runtime::write(at, word & !(1 << (one % 64)));
                word >> (one % 64) & 1
            }
            _ => runtime::stop(0),
        };
        shared.set(0, result);
    }
}

/// Who lets a child's VP 0 go on.
pub trait Hand {
    /// From `rip` on until it stops again.
    fn go_on(&mut self, guest: &Guest, rip: u64) -> Option<Intercept>;
}

/// By hypercalls.
pub struct ByCalls;

impl Hand for ByCalls {
    fn go_on(&mut self, guest: &Guest, rip: u64) -> Option<Intercept> {
        let status = set_registers(guest.id, 0, &[(RegisterName::RIP, rip.into())]).status;
        status.ok().and_then(|()| guest.run(0))
    }
}

/// A child that obeys.
pub struct Obedient<H> {
    /// The child.
    pub guest: Guest,
    /// Who lets it go on.
    pub hand: H,
}

/// Starts the program in `guest`, up to where it waits for orders.
pub fn teach(guest: &mut Guest) -> Option<()> {
    need("obedient: its program", guest.start_entry(0, obey, &[]))?;
    let is_there = guest.run(0).is_some_and(|stop| stop.is_out(code::PORT));
    check("obedient: it waits", is_there).then_some(())
}

impl Obedient<ByCalls> {
    /// Starts the program in `guest`.
    pub fn start(mut guest: Guest) -> Option<Self> {
        teach(&mut guest)?;
        let hand = ByCalls;
        Some(Self { guest, hand })
    }
}

impl<H: Hand> Obedient<H> {
    fn order(&mut self, words: [u64; 3]) -> u64 {
        let shared = self.guest.shared(0);
        for (n, word) in words.into_iter().enumerate() {
            shared.set_arg(n, word);
        }
        let at = self.guest.intercept_page(0);
        let stop = self.hand.go_on(&self.guest, at.header().rip + at.length());
        if stop.is_some_and(|stop| stop.is_out(code::PORT)) {
            shared.result(0)
        } else {
            check("obedient: it obeys", false);
            u64::MAX
        }
    }
}

impl<H: Hand> Wire for Obedient<H> {
    fn post(&mut self, connection: u32, kind: u32, payload: &[u8]) -> u64 {
        for (at, piece) in post_input(connection, kind, payload).chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            let at = layout::CALL_INPUT + at as u64 * 8;
            self.guest.write(at, u64::from_le_bytes(word));
        }
        self.order([order::POST, 0, 0])
    }

    fn take(&mut self) -> Option<Said> {
        (self.order([order::TAKE, 0, 0]) == 1).then(|| {
            let shared = self.guest.shared(0);
            Said::of(&core::array::from_fn(|n| shared.result(MESSAGE + n)))
        })
    }

    fn signal(&mut self, connection: u32, flag: u16) -> u64 {
        self.order([order::SIGNAL, connection.into(), flag.into()])
    }

    fn take_flag(&mut self, number: u16) -> bool {
        self.order([order::FLAG, number.into(), 0]) == 1
    }
}

/// Runs this part of the group.
pub fn run() {
    property();
    without();
    talks();
    empty_pool();
}

fn property() {
    const TOO_MUCH: HvError = HvError::PROPERTY_VALUE_OUT_OF_RANGE;
    let Some(mut child) = need("quota: a partition", Child::create(USUAL)) else {
        return;
    };
    let get = |child: &Child| child.property(PropertyCode::VMBUS).unwrap_or(u64::MAX);
    equal("quota: none at first", get(&child), 0);
    for wrong in [1, 7, 65_537, 1 << 32, u64::MAX] {
        refused(
            format_args!("quota: {wrong:#x}"),
            child.set_property(PropertyCode::VMBUS, wrong),
            TOO_MUCH,
        );
    }
    for right in [8, 65_536, 0, 16] {
        need(
            format_args!("quota: {right}"),
            child.set_property(PropertyCode::VMBUS, right),
        );
        equal("quota: as it was set", get(&child), right);
    }
    need("quota: initialized", child.initialize());
    refused(
        "quota: too late",
        child.set_property(PropertyCode::VMBUS, 32),
        HvError::INVALID_PARTITION_STATE,
    );
    equal("quota: still the same", get(&child), 16);
    let own =
        crate::client::partition::property_of(PartitionId::new(u64::MAX), PropertyCode::VMBUS);
    check("quota: the parent has none to read", own.is_err());
    super::super::clean("quota", child.destroy());
}

/// Without the property there is no server.
fn without() {
    let Some(guest) = need("off: a child", Guest::new(1)) else {
        return;
    };
    let Some(mut obedient) = Obedient::start(guest) else {
        return;
    };
    for connection in [1, 4] {
        equal(
            format_args!("off: connection {connection}"),
            obedient.post(connection, 1, &[14, 0, 0, 0]),
            HvError::INVALID_CONNECTION_ID.0.into(),
        );
    }
    destroy("off", obedient.guest);
}

/// A child whose server may take `quota` frames.
pub fn with_quota(quota: u64) -> Result<Guest, HvError> {
    Guest::with(USUAL, 1, |child| {
        child.set_property(PropertyCode::VMBUS, quota)?;
        child.deposit(quota as usize)
    })
}

fn talks() {
    let guest = need("child: with VMBus", with_quota(8));
    let Some(obedient) = guest.and_then(Obedient::start) else {
        return;
    };
    let mut client = Client::new(obedient);
    conversation::versions(&mut client, "child");
    equal(
        "child: nothing is offered",
        client.offers().map_or(u64::MAX, |list| list.len() as u64),
        0,
    );
    conversation::strangers(&mut client, "child");
    conversation::garbage(&mut client, "child");
    conversation::full_queue(&mut client, "child");
    conversation::unload(&mut client, "child");
    conversation::connect(&mut client, "child", vmbus_proto::Version::V5_3);
    destroy("child", client.wire.guest);
}

/// A server that finds nothing in the pool refuses posts, and takes them when there is something.
fn empty_pool() {
    const FULL: u64 = HvError::INSUFFICIENT_BUFFERS.0 as u64;
    let guest = Guest::with(USUAL, 1, |child| child.set_property(PropertyCode::VMBUS, 8));
    let guest = need("poor: with VMBus", guest);
    let Some(mut obedient) = guest.and_then(Obedient::start) else {
        return;
    };
    let id = obedient.guest.id;
    loop {
        let (reply, frames) = withdraw_frames(id, 16);
        for frame in &frames {
            obedient.guest.deposited.remove(frame);
            crate::arena::free(*frame);
        }
        if reply.status.is_err() || frames.is_empty() {
            break;
        }
    }
    let mut client = Client::new(obedient);
    let mut given = 0;
    loop {
        // Contact with version 5.3, SINT 2, VP 0.
        let mut payload = [0; 40];
        (payload[0], payload[8], payload[10], payload[16]) = (14, 3, 5, SINT);
        let status = client.wire.post(4, 1, &payload);
        if status != FULL || given == 8 {
            equal("poor: contact in the end", status, 0);
            break;
        }
        need("poor: a frame", client.wire.guest.deposit(1));
        given += 1;
    }
    equal("poor: three frames are enough", given, 3);
    let said = client.wire.take();
    check(
        "poor: it is answered",
        said.is_some_and(|said| said.kind == Some(vmbus_proto::MessageType::VERSION_RESPONSE)),
    );
    destroy("poor", client.wire.guest);
}
