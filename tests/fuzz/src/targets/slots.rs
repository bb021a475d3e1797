//! Sessions in which either side says anything: neither panics, loops, or forgets what it promised.

use std::sync::atomic::{AtomicBool, AtomicU64};

use addr::PartitionId;
use arbitrary::Arbitrary;
use ring::{Contiguous, Outgoing, Reader, RingMem, Writer};
use ring_proto::{PacketFlags, PacketType};
use slot_proto::event::AREA_WORDS;
use slot_proto::signal::PAGE_WORDS;
use slot_proto::{ChannelKind, Generation, Header, MAX_PACKET_BYTES, Status, Type, split};
use slots::{
    Attachment, Channel, Client, Doorbell, Generations, Identity, MAX_OUTSTANDING, SharedWords,
    Turn, Watcher, collect_signals,
};

use crate::{FIELDS, Ring, target};

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
const ATTACHMENT: Attachment = Attachment {
    partition: PartitionId::new(5),
    has_vmbus: false,
    is_finalized: false,
};

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
    let mut hv = Channel::open(identity, up.mem(), down.mem()).unwrap();
    let mut generations = Generations::new();
    let doorbell = Doorbell::<AtomicBool>::default();
    let mut upstream = Writer::new(up.mem()).unwrap();
    let mut downstream = Reader::new(down.mem()).unwrap();
    let mut tickets = Vec::new();
    let mut is_broken = false;
    let mut buffer = Box::new([0; MAX_PACKET_BYTES]);
    for step in steps.iter().take(256) {
        match step {
            Step::Packet {
                kind,
                transaction,
                generation,
                len,
                body,
            } => {
                let len = len.map_or(body.len() as u32, u32::from);
                let generation = Generation((generation % 4).into());
                let header = Header::new(Type((kind % 48).into()), generation, len);
                send(&mut upstream, *transaction, &[&header.encode(), body]);
            }
            Step::Hello(generation) => {
                let generation = Generation((generation % 4).into());
                let header = Header::new(Type::HELLO, generation, 16).encode();
                let (body, _) = Client::<Contiguous<'_>>::hello(5).body();
                send(&mut upstream, 11, &[&header, body.as_bytes()]);
            }
            Step::Field(is_up, field, value) => {
                is_broken = true;
                let ring = if *is_up { &up } else { &down };
                ring.mem()
                    .set_control(FIELDS[usize::from(field % 5)], *value);
            }
            Step::Word(is_up, at, word) => {
                is_broken = true;
                let ring = if *is_up { &up } else { &down };
                ring.mem().set_word(u32::from(*at) * 8 % RING as u32, *word);
            }
            Step::Serve => {
                for _ in 0..16 {
                    let before = hv.generation();
                    match hv.next(&mut buffer, Some(&ATTACHMENT), &mut generations) {
                        Turn::Run(ticket, _) => {
                            assert!(hv.is_live());
                            tickets.push(ticket);
                            assert!(tickets.len() <= MAX_OUTSTANDING as usize);
                        }
                        Turn::Answered(begun) => {
                            assert_eq!(begun.is_some(), hv.generation() != before);
                        }
                        Turn::Cancel(ticket) => assert!(tickets.contains(&ticket)),
                        Turn::Idle | Turn::Blocked(_) => break,
                        Turn::Stopped(stop) => {
                            let again = hv.next(&mut buffer, Some(&ATTACHMENT), &mut generations);
                            assert!(matches!(again, Turn::Stopped(same) if same == stop));
                            break;
                        }
                    }
                }
                let _ = hv.flush(&doorbell);
            }
            Step::Complete(which) => {
                if !tickets.is_empty() {
                    let ticket = tickets.swap_remove(usize::from(*which) % tickets.len());
                    assert!(hv.complete(ticket, &Status::default().encode(), &[1; 4000]));
                    assert!(!hv.complete(ticket, &[], &[]));
                    let _ = hv.flush(&doorbell);
                }
            }
            Step::Attach => {
                if let Some(generation) = generations.fresh() {
                    hv.attach(generation);
                    upstream.restart();
                    downstream.restart();
                }
            }
            Step::Detach => {
                hv.detach(slot_proto::SessionOver::Goodbye);
                let _ = hv.flush(&doorbell);
            }
            Step::Take => {
                let packet = downstream.next(&mut buffer[..]);
                if is_broken {
                    continue;
                }
                if let Some(packet) = packet.unwrap() {
                    assert!(split(packet.payload).is_ok());
                    let is_notice = packet.descriptor.transaction == 1 << 63;
                    assert_eq!(packet.descriptor.kind == PacketType::IN_BAND, is_notice);
                    let _ = downstream.publish();
                }
            }
            Step::Area(at, word) => area[..].store(usize::from(*at), *word),
            Step::Signal(at, word) => signals[..].store(usize::from(*at), *word),
            Step::Watch => {
                let pages = &area[..];
                pages.store(0, 1);
                if let Ok(mut watcher) = Watcher::new(pages, Generation(1)) {
                    watcher.take_news();
                    let mut count = 0;
                    watcher.take_signals(|relid| {
                        assert!(relid.0 < 2048);
                        count += 1;
                    });
                    assert!(count <= 2048);
                    while let Ok(Some(_)) = watcher.next_notice() {}
                }
                collect_signals(&&signals[..], Generation(1), |relid| {
                    assert!(relid.0 < 2048)
                });
            }
        }
    }
    // The client's side of the same memory.
    if let Ok(mut client) = Client::new(Generation(1), up.mem(), down.mem()) {
        let _ = client.send(&Client::<Contiguous<'_>>::hello(1));
        for _ in 0..RING / 24 {
            if !matches!(client.next(&mut buffer), Ok(Some(_))) {
                break;
            }
        }
    }
});

fn send(upstream: &mut Writer<Contiguous<'_>>, transaction: u8, payload: &[&[u8]]) {
    let _ = upstream.put(&Outgoing {
        kind: PacketType::IN_BAND,
        flags: PacketFlags::COMPLETION_REQUESTED,
        transaction: (transaction % 16).into(),
        header: &[],
        payload,
    });
    let _ = upstream.commit();
}
