//! Sessions in which either side says anything: neither panics, loops, or forgets what it promised.

use std::sync::atomic::AtomicU64;

use arbitrary::Arbitrary;
use ring::Contiguous;
use slot_proto::event::AREA_WORDS;
use slot_proto::signal::PAGE_WORDS;
use slot_proto::{ChannelKind, Generation, MAX_PACKET_BYTES};
use slots::{Client, Identity, SharedWords, Watcher, collect_signals};

use crate::{Ring, target};

#[path = "../../../../src/logic/slots/tests/peer/mod.rs"]
mod peer;

#[derive(Arbitrary, Debug)]
enum Step {
    Packet {
        kind: u8,
        transaction: u8,
        generation: u8,
        len: Option<u16>,
        body: Vec<u8>,
    },
    Hello(u8),
    Field(bool, u8, u32),
    Word(bool, u16, u64),
    Serve,
    Complete(u8),
    Attach,
    Detach,
    Take,
    /// A word of the event area or of the signal page.
    Area(u16, u64),
    Signal(u16, u64),
    Watch,
}

const RING: usize = 16384;

impl Step {
    /// The step of a session that this is, if it is one.
    fn of_session(&self) -> Option<peer::Step> {
        Some(match self {
            Self::Packet {
                kind,
                transaction,
                generation,
                len,
                body,
            } => peer::Step::Packet {
                kind: (kind % 48).into(),
                transaction: (transaction % 16).into(),
                generation: (generation % 4).into(),
                len: len.map_or(body.len() as u32, u32::from),
                body: body.clone(),
            },
            Self::Hello(generation) => peer::Step::Hello((generation % 4).into()),
            Self::Field(is_up, field, value) => peer::Step::Field {
                is_up: *is_up,
                field: (*field).into(),
                value: *value,
            },
            Self::Word(is_up, at, word) => peer::Step::Word {
                is_up: *is_up,
                at: u32::from(*at) * 8 % RING as u32,
                word: *word,
            },
            Self::Serve => peer::Step::Serve,
            Self::Complete(which) => peer::Step::Complete((*which).into()),
            Self::Attach => peer::Step::Attach,
            Self::Detach => peer::Step::Detach,
            Self::Take => peer::Step::Take,
            Self::Area(..) | Self::Signal(..) | Self::Watch => return None,
        })
    }
}

target!(|input: (bool, Vec<Step>)| {
    let (is_slot, steps) = input;
    let (up, down) = (Ring::new(RING), Ring::new(RING));
    let words = |count| -> Vec<AtomicU64> { (0..count).map(|_| AtomicU64::new(0)).collect() };
    let (area, signals) = (words(AREA_WORDS), words(PAGE_WORDS));
    let identity = Identity {
        kind: if is_slot {
            ChannelKind::Slot
        } else {
            ChannelKind::Control
        },
        slot: 3,
        boot_id: 7,
        features: 0,
    };
    let mut session = peer::Session::open(identity, up.mem(), down.mem());
    for step in steps.iter().take(256) {
        match step {
            Step::Area(at, word) => area[..].store(usize::from(*at), *word),
            Step::Signal(at, word) => signals[..].store(usize::from(*at), *word),
            Step::Watch => watch(&area[..], &signals[..]),
            step => step.of_session().iter().for_each(|step| session.step(step)),
        }
    }
    // The client's side of the same memory.
    if let Ok(mut client) = Client::new(Generation(1), up.mem(), down.mem()) {
        let _ = client.send(&Client::<Contiguous<'_>>::hello(1));
        let mut buffer = Box::new([0; MAX_PACKET_BYTES]);
        for _ in 0..RING / 24 {
            if !matches!(client.next(&mut buffer), Ok(Some(_))) {
                break;
            }
        }
    }
});

/// User space looks at its pages.
fn watch(area: &[AtomicU64], signals: &[AtomicU64]) {
    area.store(0, 1);
    if let Ok(mut watcher) = Watcher::new(area, Generation(1)) {
        watcher.take_news();
        let mut count = 0;
        watcher.take_signals(|relid| {
            assert!(relid.0 < 2048);
            count += 1;
        });
        assert!(count <= 2048);
        while let Ok(Some(_)) = watcher.next_notice() {}
    }
    collect_signals(&signals, Generation(1), |relid| assert!(relid.0 < 2048));
}
