use std::vec::Vec;

use addr::{Gpa, PartitionId};
use proptest::collection::vec;
use proptest::prelude::*;
use tlfs::Control;
use tlfs::wire::Zero;
use vmbus_proto::{GpadlHandle, Guid, Offer, OfferFlags, Relid, UserData, Version};

use super::*;

fn bytes(request: &Request<'_>) -> Vec<u8> {
    let (fixed, rest) = request.body();
    [fixed.as_bytes(), rest].concat()
}

fn requests() -> impl Strategy<Value = (u8, [u32; 8], Vec<u8>)> {
    (0u8..17, any::<[u32; 8]>(), vec(any::<u8>(), 0..600))
}

fn request(choice: u8, n: [u32; 8], tail: &[u8]) -> Request<'_> {
    let long = |at: usize| u64::from(n[at]) << 32 | u64::from(n[at + 1]);
    let relid = Relid(n[0]);
    let channel = RelidOnly {
        relid,
        reserved: Zero,
    };
    match choice {
        0 => Request::Hello(Hello {
            magic: n[0],
            major: n[1] as u16,
            minor: n[2] as u16,
            max_outstanding: n[3],
            reserved: Zero,
        }),
        1 => Request::Call(Call {
            control: Control(long(0) & !Control::RESERVED & !Control::FAST),
            input: tail,
        }),
        2 => Request::Cancel(Cancel {
            transaction: long(0),
        }),
        3 => Request::SlotAdd(SlotAdd {
            number: n[0],
            reserved: Zero,
        }),
        4 => Request::Attach(Attach {
            slot: n[0],
            flags: AttachFlags::from_bits_truncate(n[1]),
            partition: PartitionId::new(long(2)),
            event_area: Gpa::new(long(4)),
            signal_page: Gpa::new(long(6)),
        }),
        5 => Request::Detach(Detach {
            slot: n[0],
            generation: Generation(n[1]),
        }),
        6 => Request::List(List {
            start: n[0],
            reserved: Zero,
        }),
        7 => Request::Tag(Tag {
            partition: PartitionId::new(long(0)),
            tag: long(2),
        }),
        8 => Request::Offer(Offer {
            class: Guid([n[0] as u8; 16]),
            instance: Guid([n[1] as u8; 16]),
            flags: OfferFlags::from_bits_retain(n[2] as u16),
            mmio_megabytes: n[3] as u16,
            sub_channel: n[4] as u16,
            reserved: Zero,
            user: UserData([n[5] as u8; 120]),
        }),
        9 => Request::Rescind(channel),
        10 => Request::OpenResult(OpenResult {
            relid,
            status: n[1],
        }),
        11 => Request::CloseDone(channel),
        12 => Request::GpadlPages(GpadlPagesFrom {
            relid,
            handle: GpadlHandle(n[1]),
            first: n[2],
            reserved: Zero,
        }),
        13 => Request::GpadlDone(GpadlName {
            relid,
            handle: GpadlHandle(n[1]),
        }),
        14 => Request::ResetDone,
        15 => Request::VmbusSave(SaveFrom {
            offset: n[0],
            reserved: Zero,
        }),
        _ => Request::VmbusRestore(
            RestorePart {
                bytes: n[0],
                offset: n[1],
            },
            tail,
        ),
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_arrives((choice, numbers, tail) in requests()) {
        let request = request(choice, numbers, &tail);
        let body = bytes(&request);
        prop_assert_eq!(Request::decode(request.kind(), &body), Ok(request));
        if !matches!(request, Request::Call(_) | Request::VmbusRestore(..)) {
            let longer = [&body[..], &[0]].concat();
            prop_assert_eq!(Request::decode(request.kind(), &longer), Err(HvError::INVALID_PARAMETER));
            let shorter = &body[..body.len() - 1];
            prop_assert_eq!(Request::decode(request.kind(), shorter), Err(HvError::INVALID_PARAMETER));
        }
    }

    #[test]
    fn any_bytes_are_a_request_or_refused(kind in 0u16..48, body in vec(0u8..3, 0..200)) {
        if let Ok(request) = Request::decode(Type(kind), &body) {
            prop_assert_eq!(request.kind(), Type(kind));
            prop_assert_eq!(bytes(&request), body);
        }
    }

    #[test]
    fn any_bytes_are_framed_or_refused(payload in vec(0u8..32, 0..120)) {
        if let Ok((header, body)) = split(&payload) {
            prop_assert_eq!(body.len(), header.body_bytes as usize);
            let used = usize::from(header.header_bytes) + body.len();
            prop_assert!(used <= payload.len() && payload.len() < used + 8);
        }
    }

    #[test]
    fn any_words_are_a_notice_or_refused(words in any::<[u64; NOTICE_WORDS]>(), kind in 0u64..7, len in 0u64..260) {
        let mut words = words;
        words[0] = kind | len << 16 | words[0] << 32;
        let _ = Notice::decode(&words);
    }
}

#[test]
fn a_payload_of_a_newer_sender_is_understood() {
    let mut payload = Header::new(Type::LIST, Generation(7), 8).encode().to_vec();
    payload[2] = 24;
    payload.extend([0xEE; 8]);
    payload.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let (header, body) = split(&payload).unwrap();
    assert_eq!(
        (header.kind, header.generation),
        (Type::LIST, Generation(7))
    );
    assert_eq!(body, [1, 0, 0, 0, 0, 0, 0, 0]);
    payload[2] = 15;
    assert_eq!(split(&payload), Err(Framing));
    payload[2] = 16;
    assert_eq!(
        split(&payload),
        Err(Framing),
        "a word too many is no padding"
    );
}

#[test]
fn unknown_types_and_fast_calls_have_their_own_errors() {
    assert_eq!(
        Request::decode(Type(4), &[]),
        Err(HvError::INVALID_HYPERCALL_CODE)
    );
    assert_eq!(
        Request::decode(Type(41), &[]),
        Err(HvError::INVALID_HYPERCALL_CODE)
    );
    let control = (Control::FAST | 0x46).to_le_bytes();
    assert_eq!(
        Request::decode(Type::CALL, &control),
        Err(HvError::INVALID_HYPERCALL_INPUT)
    );
    let long = [0; 8 + MAX_CALL_BYTES + 1];
    assert_eq!(
        Request::decode(Type::CALL, &long),
        Err(HvError::INVALID_PARAMETER)
    );
    assert!(Request::decode(Type::CALL, &long[1..]).is_ok());
}

#[test]
fn the_largest_packets_fit() {
    let head = 16 + Header::BYTES;
    assert!(head + 8 + MAX_CALL_BYTES <= MAX_PACKET_BYTES);
    assert!(head + GpadlPagesDone::BYTES + MAX_GPADL_PAGES * 8 <= MAX_PACKET_BYTES);
    assert!(head + SaveDone::BYTES + MAX_STATE_BYTES <= MAX_PACKET_BYTES);
    assert!(head + ListDone::BYTES + MAX_LIST_ENTRIES * ListEntry::BYTES <= MAX_PACKET_BYTES);
}

/// Offsets as the table of the protocol gives them, byte by byte.
#[test]
fn layouts_are_those_of_the_protocol() {
    let attach = Attach {
        slot: 3,
        flags: AttachFlags::STAYS_SUSPENDED,
        partition: PartitionId::new(5),
        event_area: Gpa::new(0x1000),
        signal_page: Gpa::new(0x2000),
    };
    let bytes = attach.encode();
    assert_eq!(
        (bytes[0], bytes[4], bytes[8], bytes[17], bytes[25]),
        (3, 1, 5, 0x10, 0x20)
    );

    let hello = HelloDone {
        status: 1,
        minor: 2,
        generation: Generation(3),
        kind: ChannelKind::Slot,
        slot: 5,
        max_outstanding: 6,
        max_packet: 7,
        boot_id: 8,
        features: 9,
    };
    let bytes = hello.encode();
    let at = [0, 2, 4, 8, 12, 16, 20, 24, 32].map(|offset| bytes[offset]);
    assert_eq!(at, [1, 2, 3, 1, 5, 6, 7, 8, 9]);

    let opening = Opening {
        ring: GpadlHandle(0x11),
        downstream_page: 0x22,
        vp: 0x33,
        version: Version(0x44),
        user: UserData([0x55; 120]),
        is_open_already: true,
        reserved: Zero,
    };
    let words = Notice::Open(Relid(9), opening).encode(77);
    assert_eq!(words[0], 1 | 140 << 16 | 9 << 32);
    assert_eq!(words[1], 77);
    assert_eq!(words[2], 0x11 | 0x22 << 32);
    assert_eq!(words[3], 0x33 | 0x44 << 32);
    assert_eq!(words[4..19], [0x5555_5555_5555_5555; 15]);
    assert_eq!(words[19], 1);
    assert_eq!(
        Notice::decode(&words),
        Ok((77, Notice::Open(Relid(9), opening)))
    );

    let offer = OfferData::new(ChannelKind::Slot, 4).user_data();
    assert_eq!(offer.0[..4], MAGIC.to_le_bytes());
    assert_eq!((offer.0[4], offer.0[8], offer.0[12]), (1, 1, 4));
}

#[test]
fn notices_arrive_as_they_were() {
    for notice in [
        Notice::Close(Relid(2047)),
        Notice::GpadlTeardown(Relid(1), GpadlHandle(0xE1E10)),
        Notice::Released(Relid(7)),
        Notice::Reset(ResetCause::Contact),
    ] {
        assert_eq!(Notice::decode(&notice.encode(3)), Ok((3, notice)));
    }
    let words = Notice::Reset(ResetCause::Unload).encode(1);
    assert_eq!((words[0], words[2]), (5 | 4 << 16, 1));
    let mut wrong = words;
    wrong[2] = 3;
    assert_eq!(Notice::decode(&wrong), Err(HvError::INVALID_PARAMETER));
}
