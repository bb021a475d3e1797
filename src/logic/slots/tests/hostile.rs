//! A peer that writes anything anywhere: this side neither panics nor loops, and keeps its own promises.

mod common;

use addr::PartitionId;
use common::{Shared, buffer};
use proptest::collection::vec;
use proptest::prelude::*;
use ring::{Outgoing, Reader, RingMem, Writer};
use ring_proto::{Control, PacketFlags, PacketType};
use slot_proto::{ChannelKind, Generation, Header, Status, Type, split};
use slots::{
    Attachment, Client, Doorbell, Generations, MAX_OUTSTANDING, SharedWords, Turn, Watcher,
};

const ATTACHMENT: Attachment = Attachment {
    partition: PartitionId::new(5),
    has_vmbus: false,
    is_finalized: false,
};

#[derive(Clone, Debug)]
enum Step {
    /// A packet that is nearly a request.
    Packet {
        kind: u16,
        transaction: u64,
        generation: u32,
        len: u32,
        body: Vec<u8>,
    },
    /// HELLO as it should be.
    Hello(u32),
    Field(usize, u32),
    Word(u32, u64),
    Serve,
    Complete(usize),
    Attach,
    Detach,
    /// User space takes a completion.
    Take,
}

const FIELDS: [Control; 5] = [
    Control::WriteIndex,
    Control::ReadIndex,
    Control::InterruptMask,
    Control::PendingSendSize,
    Control::Features,
];

fn steps(breaks_rings: bool) -> impl Strategy<Value = Vec<Step>> {
    let packet = (0u16..45, 0u64..12, 0u32..4, 0u32..60, vec(0u8..6, 0..200)).prop_map(
        |(kind, transaction, generation, len, body)| Step::Packet {
            kind,
            transaction,
            generation,
            len,
            body,
        },
    );
    let breaking = u32::from(breaks_rings);
    vec(
        prop_oneof![
            12 => packet,
            3 => (0u32..4).prop_map(Step::Hello),
            breaking => (0usize..5, prop_oneof![any::<u32>(), (0u32..2200).prop_map(|i| i * 8)]).prop_map(|(f, v)| Step::Field(f, v)),
            breaking => ((0u32..2048).prop_map(|i| i * 8), any::<u64>()).prop_map(|(at, word)| Step::Word(at, word)),
            6 => Just(Step::Serve),
            6 => any::<usize>().prop_map(Step::Complete),
            1 => Just(Step::Attach),
            1 => Just(Step::Detach),
            6 => Just(Step::Take),
        ],
        1..200,
    )
}

/// Runs the hypervisor's side. Unless the peer breaks the rings themselves, what it writes is always well-formed.
fn run(kind: ChannelKind, steps: &[Step], breaks_rings: bool) -> Result<(), TestCaseError> {
    let shared = Shared::with_rings(16384);
    let mut hv = shared.open(kind);
    let (mut generations, doorbell) = (
        Generations::new(),
        Doorbell::<std::sync::atomic::AtomicBool>::default(),
    );
    let mut upstream = Writer::new(shared.upstream.mem()).unwrap();
    let mut downstream = Reader::new(shared.downstream.mem()).unwrap();
    let mut tickets = Vec::new();
    let mut buffer = buffer();
    for step in steps {
        match step {
            Step::Packet {
                kind,
                transaction,
                generation,
                len,
                body,
            } => {
                let len = if *len < 50 { body.len() as u32 } else { *len };
                let header = Header::new(Type(*kind), Generation(*generation), len).encode();
                send(&mut upstream, *transaction, &[&header, body]);
            }
            Step::Hello(generation) => {
                let header = Header::new(Type::HELLO, Generation(*generation), 16).encode();
                let (body, _) = Client::<ring::Contiguous<'_>>::hello(5).body();
                send(&mut upstream, 11, &[&header, body.as_bytes()]);
            }
            Step::Field(field, value) => {
                shared.upstream.mem().set_control(FIELDS[*field], *value);
                shared
                    .downstream
                    .mem()
                    .set_control(FIELDS[*field], value.rotate_left(3));
            }
            Step::Word(at, word) => {
                shared.upstream.mem().set_word(*at, *word);
                shared.downstream.mem().set_word(*at, !*word);
            }
            Step::Serve => {
                for _ in 0..16 {
                    let before = hv.generation();
                    match hv.next(&mut buffer, Some(&ATTACHMENT), &mut generations) {
                        Turn::Run(ticket, request) => {
                            prop_assert!(hv.is_live());
                            let _ = format!("{request:?}");
                            tickets.push(ticket);
                            prop_assert!(tickets.len() <= MAX_OUTSTANDING as usize);
                        }
                        Turn::Answered(begun) => {
                            prop_assert_eq!(begun.is_some(), hv.generation() != before)
                        }
                        Turn::Cancel(ticket) => prop_assert!(tickets.contains(&ticket)),
                        Turn::Idle | Turn::Blocked(_) => break,
                        Turn::Stopped(stop) => {
                            let again = hv.next(&mut buffer, Some(&ATTACHMENT), &mut generations);
                            prop_assert!(matches!(again, Turn::Stopped(same) if same == stop));
                            break;
                        }
                    }
                }
                let _ = hv.flush(&doorbell);
            }
            Step::Complete(which) => {
                if !tickets.is_empty() {
                    let ticket = tickets.swap_remove(which % tickets.len());
                    prop_assert!(hv.complete(ticket, &Status::default().encode(), &[1; 4000]));
                    prop_assert!(!hv.complete(ticket, &[], &[]));
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
                if breaks_rings {
                    continue;
                }
                let mut copy = common::buffer();
                if let Some(packet) = downstream.next(&mut copy[..]).unwrap() {
                    prop_assert!(split(packet.payload).is_ok());
                    let id = packet.descriptor.transaction;
                    prop_assert_eq!(packet.descriptor.kind == PacketType::IN_BAND, id == 1 << 63);
                    let _ = downstream.publish();
                }
            }
        }
    }
    Ok(())
}

fn send(upstream: &mut Writer<ring::Contiguous<'_>>, transaction: u64, payload: &[&[u8]]) {
    let _ = upstream.put(&Outgoing {
        kind: PacketType::IN_BAND,
        flags: PacketFlags::COMPLETION_REQUESTED,
        transaction,
        header: &[],
        payload,
    });
    let _ = upstream.commit();
}

proptest! {
    #[test]
    fn strange_requests_are_answered_or_stop_the_channel(steps in steps(false), is_slot: bool) {
        let kind = if is_slot { ChannelKind::Slot } else { ChannelKind::Control };
        run(kind, &steps, false)?;
    }

    #[test]
    fn broken_rings_stop_the_channel(steps in steps(true), is_slot: bool) {
        let kind = if is_slot { ChannelKind::Slot } else { ChannelKind::Control };
        run(kind, &steps, true)?;
    }

    #[test]
    fn user_space_survives_any_ring_and_any_area(
        words in vec((0u32..40, 0u64..40), 0..60),
        index in 0u32..300,
        area in vec((0usize..9000, any::<u64>()), 0..40),
        small in vec((0usize..600, 0u64..300), 0..40),
    ) {
        let shared = Shared::with_rings(16384);
        let down = shared.downstream.mem();
        words.iter().for_each(|(at, word)| down.set_word(at * 8, *word | 2 << 16 | (*word & 7) << 32));
        down.set_control(Control::WriteIndex, index * 8);
        let mut client = Client::new(Generation(1), shared.upstream.mem(), down).unwrap();
        client.send(&Client::<ring::Contiguous<'_>>::hello(1)).unwrap();
        let mut buffer = buffer();
        for _ in 0..300 {
            if !matches!(client.next(&mut buffer), Ok(Some(_))) {
                break;
            }
        }
        let pages = &shared.area[..];
        area.iter().chain(&small).for_each(|(at, word)| pages.store(*at, *word));
        pages.store(0, 1);
        pages.store(1, 1);
        let mut watcher = Watcher::new(pages, Generation(1)).unwrap();
        watcher.take_news();
        let mut signals = 0;
        watcher.take_signals(|relid| {
            assert!(relid.0 < 2048);
            signals += 1;
        });
        prop_assert!(signals <= 2048);
        while let Ok(Some(_)) = watcher.next_notice() {}
    }
}
