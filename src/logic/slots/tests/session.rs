//! Conversations between the two sides of a channel.

mod common;

use std::sync::atomic::AtomicBool;

use addr::{Gpa, PartitionId, VpIndex};
use common::{Shared, buffer};
use ring::{Contiguous, Outgoing, RingMem, Writer};
use ring_proto::{Control as Field, PacketFlags, PacketType};
use slot_proto::event::{Faults, NOTICE_COUNT, NOTICE_HEAD_WORD};
use slot_proto::{
    Attach, AttachFlags, Attached, Call, Cancel, ChannelKind, Generation, Header, HelloDone, List,
    Notice, Request, SessionOver, Status, Type,
};
use slots::{
    Attachment, BadArea, Blocked, Channel, Client, Completion, Doorbell, Events, Generations,
    Incoming, MAX_OUTSTANDING, NoticeError, NoticeQueue, SendError, SharedWords, SignalPage, Stop,
    Turn, Watcher, collect_signals,
};
use tlfs::call::{PARTITION_SELF, VpState};
use tlfs::wire::Zero;
use tlfs::{CallCode, Control, HvError, PropertyCode, ResultWord};
use vmbus_proto::Relid;

const CHILD: PartitionId = PartitionId::new(5);
const ATTACHMENT: Attachment = Attachment {
    partition: CHILD,
    has_vmbus: true,
    is_finalized: false,
};
const LIST: Request<'static> = Request::List(List {
    start: 0,
    reserved: Zero,
});

fn call<'a>(code: CallCode, input: &'a [u8]) -> Request<'a> {
    Request::Call(Call {
        control: Control::simple(code),
        input,
    })
}

/// Both sides of one channel, and an LP that works when user space signals.
struct Pair<'a> {
    hv: Channel<Contiguous<'a>>,
    user: Client<Contiguous<'a>>,
    doorbell: Doorbell,
    generations: Generations,
    attachment: Option<Attachment>,
}

impl<'a> Pair<'a> {
    fn new(shared: &'a Shared, kind: ChannelKind) -> Self {
        let mut pair = Self {
            hv: shared.open(kind),
            user: Client::new(
                Generation::NONE,
                shared.upstream.mem(),
                shared.downstream.mem(),
            )
            .unwrap(),
            doorbell: Doorbell::new(AtomicBool::new(false)),
            generations: Generations::new(),
            attachment: None,
        };
        if kind == ChannelKind::Slot {
            pair.attach(shared);
        }
        pair
    }

    /// A new session, and a new worker that knows its generation.
    fn attach(&mut self, shared: &'a Shared) -> Generation {
        let generation = self.generations.fresh().unwrap();
        self.hv.attach(generation);
        self.attachment = Some(ATTACHMENT);
        self.user =
            Client::new(generation, shared.upstream.mem(), shared.downstream.mem()).unwrap();
        generation
    }

    fn step(&mut self) -> Result<(slots::Ticket, Vec<u8>), String> {
        let mut buffer = buffer();
        let turn = self
            .hv
            .next(&mut buffer, self.attachment.as_ref(), &mut self.generations);
        match turn {
            Turn::Run(ticket, request) => {
                let (fixed, rest) = request.body();
                Ok((ticket, [fixed.as_bytes(), rest].concat()))
            }
            turn => Err(format!("{turn:?}")),
        }
    }

    /// Sends, lets the hypervisor answer by itself, and returns the status.
    fn ask(&mut self, request: &Request<'_>) -> Result<(), HvError> {
        let transaction = self.user.send(request).unwrap();
        let _ = self.user.flush();
        while let Ok((ticket, _)) = self.step() {
            assert!(self.hv.complete(ticket, &Status::of(Ok(())).encode(), &[]));
        }
        let _ = self.hv.flush(&self.doorbell);
        match self.receive() {
            Some((id, _, result)) if id == transaction => result,
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self) -> Option<(u64, Type, Result<(), HvError>)> {
        match self.user.next(&mut buffer()).unwrap() {
            Some(Incoming::Completion(Completion {
                transaction,
                kind,
                result,
                ..
            })) => Some((transaction, kind, result)),
            None => None,
            Some(over) => panic!("{over:?}"),
        }
    }

    fn hello(&mut self) {
        assert_eq!(self.ask(&Client::<Contiguous<'_>>::hello(64)), Ok(()));
    }
}

#[test]
fn hello_begins_a_session_on_the_control_channel() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.user
        .send(&Client::<Contiguous<'_>>::hello(64))
        .unwrap();
    assert_eq!(
        pair.user.send(&LIST),
        Err(SendError::TooMany),
        "HELLO is first"
    );
    assert!(pair.user.flush().is_needed());
    assert!(pair.step().unwrap_err().starts_with("Answered(Some"));
    assert!(pair.hv.flush(&pair.doorbell).interrupts);
    let mut buffer = buffer();
    let Some(Incoming::Completion(completion)) = pair.user.next(&mut buffer).unwrap() else {
        panic!("no completion");
    };
    let done = HelloDone::decode(completion.body).unwrap();
    assert_eq!(
        (done.max_outstanding, done.boot_id),
        (MAX_OUTSTANDING, 0xB007)
    );
    assert_eq!((done.kind, done.slot), (ChannelKind::Control, 0));
    assert_eq!(done.generation, pair.hv.generation());
    assert_eq!(done.generation, pair.user.generation());
    assert_eq!(pair.ask(&LIST), Ok(()));

    let old = pair.hv.generation();
    pair.hello();
    assert_ne!(pair.hv.generation(), old);
}

#[test]
fn a_slot_greets_only_its_own_worker() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    assert!(!pair.hv.is_live());
    pair.hello();
    assert!(pair.hv.is_live());
    let again = Client::<Contiguous<'_>>::hello(1);
    assert_eq!(
        pair.ask(&again),
        Err(HvError::INVALID_PARTITION_STATE),
        "once a session"
    );

    let old = pair.user.generation();
    let generation = pair.attach(&shared);
    pair.user = Client::new(old, shared.upstream.mem(), shared.downstream.mem()).unwrap();
    assert_eq!(
        pair.ask(&again),
        Err(HvError::INVALID_PARTITION_STATE),
        "a worker of before"
    );
    pair.user = Client::resume(
        Generation::NONE,
        shared.upstream.mem(),
        shared.downstream.mem(),
        1000,
    )
    .unwrap();
    assert_eq!(
        pair.ask(&again),
        Err(HvError::INVALID_PARTITION_STATE),
        "one that was told nothing"
    );
    assert_eq!(pair.hv.generation(), generation);
    pair.attach(&shared);
    pair.hello();
}

#[test]
fn a_request_of_another_session_does_nothing() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    pair.hello();
    let mut writer = Writer::resume(shared.upstream.mem()).unwrap();
    for generation in [0, 2, u32::MAX] {
        let header = Header::new(Type::RESET_DONE, Generation(generation), 8).encode();
        let payload = [&header[..], &[0; 8]].concat();
        let (in_band, wants) = (PacketType::IN_BAND, PacketFlags::COMPLETION_REQUESTED);
        raw(&mut writer, in_band, wants, 77, &payload);
        assert!(
            pair.step().unwrap_err().starts_with("Answered"),
            "{generation}"
        );
    }
    assert!(!pair.hv.is_busy());
}

#[test]
fn another_protocol_is_refused_and_begins_nothing() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    for (magic, major, max) in [
        (1, 1, 1),
        (slot_proto::MAGIC, 2, 1),
        (slot_proto::MAGIC, 1, 0),
    ] {
        let hello = Request::Hello(slot_proto::Hello {
            magic,
            major,
            minor: 0,
            max_outstanding: max,
            reserved: Zero,
        });
        assert_eq!(pair.ask(&hello), Err(HvError::INVALID_PARAMETER));
        assert_eq!(pair.hv.generation(), Generation::NONE);
    }
    pair.hello();
}

#[test]
fn types_of_the_other_channel_are_unknown() {
    let shared = Shared::new();
    let mut control = Pair::new(&shared, ChannelKind::Control);
    control.hello();
    assert_eq!(
        control.ask(&Request::ResetDone),
        Err(HvError::INVALID_HYPERCALL_CODE)
    );
    let shared = Shared::new();
    let mut slot = Pair::new(&shared, ChannelKind::Slot);
    slot.hello();
    assert_eq!(slot.ask(&LIST), Err(HvError::INVALID_HYPERCALL_CODE));
    assert_eq!(slot.ask(&Request::ResetDone), Ok(()));
    slot.attachment = None;
    assert_eq!(
        slot.ask(&Request::ResetDone),
        Err(HvError::INVALID_PARTITION_STATE)
    );
}

#[test]
fn completions_may_come_in_any_order_and_only_once() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.hello();
    let ids: Vec<_> = (0..MAX_OUTSTANDING)
        .map(|_| pair.user.send(&LIST).unwrap())
        .collect();
    assert_eq!(pair.user.send(&LIST), Err(SendError::TooMany));
    let cancel = pair
        .user
        .send(&Request::Cancel(Cancel {
            transaction: ids[0],
        }))
        .unwrap();
    let _ = pair.user.flush();
    let mut tickets: Vec<_> = (0..MAX_OUTSTANDING)
        .map(|_| pair.step().unwrap().0)
        .collect();
    assert!(
        pair.step().unwrap_err().starts_with("Answered"),
        "no CALL: nothing to cancel"
    );
    tickets.rotate_left(3);
    for ticket in &tickets {
        assert!(
            !pair.hv.complete(*ticket, &[0; 5000], &[]),
            "too long, and still to be completed"
        );
        assert!(pair.hv.complete(*ticket, &Status::of(Ok(())).encode(), &[]));
        assert!(!pair.hv.complete(*ticket, &[0; 8], &[]));
    }
    let _ = pair.hv.flush(&pair.doorbell);
    assert_eq!(
        pair.receive().unwrap(),
        (cancel, Type::CANCEL, Err(HvError::NOT_FOUND))
    );
    let mut expected = ids;
    expected.rotate_left(3);
    for id in expected {
        assert_eq!(pair.receive().unwrap().0, id);
    }
    assert_eq!(pair.receive(), None);
    assert_eq!(pair.user.outstanding(), 0);
}

#[test]
fn a_call_can_be_cancelled_and_is_completed_all_the_same() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.hello();
    let id = pair
        .user
        .send(&call(CallCode::MAP_GPA_PAGES, &[1; 4096]))
        .unwrap();
    pair.user
        .send(&Request::Cancel(Cancel { transaction: id }))
        .unwrap();
    let _ = pair.user.flush();
    let (ticket, _) = pair.step().unwrap();
    assert!(pair.step().unwrap_err().starts_with("Cancel"));
    let result = ResultWord::new(Err(HvError::OPERATION_FAILED), 17);
    assert!(pair.hv.complete(ticket, &result.0.to_le_bytes(), &[]));
    let _ = pair.hv.flush(&pair.doorbell);
    assert_eq!(pair.receive().unwrap().1, Type::CANCEL);
    assert_eq!(
        pair.receive().unwrap(),
        (id, Type::CALL, Err(HvError::OPERATION_FAILED))
    );
}

#[test]
fn nothing_overtakes_a_barrier() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.hello();
    let attach = Request::Attach(Attach {
        slot: 1,
        flags: AttachFlags::empty(),
        partition: CHILD,
        event_area: Gpa::new(0),
        signal_page: Gpa::new(0),
    });
    let requests = [
        LIST,
        call(CallCode::DELETE_PARTITION, &[0; 8]),
        attach,
        LIST,
    ];
    requests
        .iter()
        .for_each(|request| assert!(pair.user.send(request).is_ok()));
    let _ = pair.user.flush();
    for kind in [Type::LIST, Type::CALL, Type::ATTACH] {
        let (ticket, _) = pair.step().unwrap();
        let blocked = format!("{:?}", Turn::Blocked(Blocked::Others));
        assert_eq!(pair.step().unwrap_err(), blocked);
        assert!(
            !pair.hv.flush(&pair.doorbell).has_more,
            "it waits for a completion"
        );
        assert_eq!(pair.step().unwrap_err(), blocked);
        assert!(pair.hv.complete(ticket, &Attached::default().encode(), &[]));
        let _ = pair.hv.flush(&pair.doorbell);
        assert_eq!(pair.receive().unwrap().1, kind);
    }
    assert!(pair.step().is_ok());
}

#[test]
fn who_stops_after_a_request_hears_whether_there_is_another() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.hello();
    pair.user.send(&LIST).unwrap();
    pair.user.send(&LIST).unwrap();
    let _ = pair.user.flush();
    for has_more in [true, false] {
        let (ticket, _) = pair.step().unwrap();
        assert!(pair.hv.complete(ticket, &[], &[]));
        assert_eq!(pair.hv.flush(&pair.doorbell).has_more, has_more);
    }
}

#[test]
fn no_request_is_taken_without_room_for_its_completion() {
    // Three completions of the largest size fit, and a word.
    let shared = Shared::with_rings(3 * 4232 + 8);
    let mut pair = Pair::new(&shared, ChannelKind::Control);
    pair.hello();
    for _ in 0..2 {
        pair.user.send(&LIST).unwrap();
    }
    assert_eq!(pair.user.send(&LIST), Err(SendError::TooMany));
    let _ = pair.user.flush();
    for _ in 0..2 {
        let (ticket, _) = pair.step().unwrap();
        assert!(pair.hv.complete(ticket, &[0; 16], &[0; 4176]));
        let _ = pair.hv.flush(&pair.doorbell);
    }
    // A CANCEL is not bounded by what was granted, but it waits for room.
    for _ in 0..2 {
        let cancel = Request::Cancel(Cancel { transaction: 99 });
        pair.user.send(&cancel).unwrap();
    }
    let _ = pair.user.flush();
    assert!(pair.step().unwrap_err().starts_with("Answered"));
    let blocked = format!("{:?}", Turn::Blocked(Blocked::Space));
    assert_eq!(pair.step().unwrap_err(), blocked);
    assert!(
        !pair.hv.flush(&pair.doorbell).has_more,
        "it waits for space"
    );
    let first = pair.receive();
    assert!(first.is_some());
    assert!(
        pair.user.flush().is_needed(),
        "the hypervisor waits for the space"
    );
    assert!(pair.step().unwrap_err().starts_with("Answered"));
    let _ = pair.hv.flush(&pair.doorbell);
    while pair.receive().is_some() {}
    assert_eq!(pair.user.outstanding(), 0);
}

#[test]
fn a_slot_calls_about_its_partition_only() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    pair.hello();
    let mut ask = |code, partition: PartitionId, rest: &[u8]| {
        let input = [&partition.get().to_le_bytes()[..], rest].concat();
        pair.ask(&call(code, &input))
    };
    let registers = CallCode::GET_VP_REGISTERS;
    assert_eq!(ask(registers, CHILD, &[0; 8]), Ok(()));
    assert_eq!(ask(registers, PARTITION_SELF, &[0; 8]), Ok(()));
    assert_eq!(
        ask(registers, PartitionId::new(6), &[0; 8]),
        Err(HvError::INVALID_PARTITION_ID)
    );
    for code in [
        0x40, 0x41, 0x42, 0x43, 0x48, 0x49, 0x4B, 0x4C, 0x4E, 0x4F, 0x5C, 0x5D, 0x6C, 0x6D, 0x95,
        0x96, 0xE1, 0xE2, 0x131, 0x8001,
    ] {
        assert_eq!(
            ask(CallCode(code), CHILD, &[0; 64]),
            Err(HvError::ACCESS_DENIED),
            "{code:#x}"
        );
    }
    let direct = CallCode::POST_MESSAGE_DIRECT;
    assert_eq!(
        ask(direct, CHILD, &[0; 64]),
        Err(HvError::INVALID_PARTITION_STATE),
        "its SINT is the server's"
    );
    let property = |code: PropertyCode| [&code.0.to_le_bytes()[..], &[0; 12]].concat();
    let set = CallCode::SET_PARTITION_PROPERTY;
    assert_eq!(
        ask(set, CHILD, &property(PropertyCode::TIME_FREEZE)),
        Ok(())
    );
    assert_eq!(
        ask(set, CHILD, &property(PropertyCode::PRIVILEGE_FLAGS)),
        Err(HvError::ACCESS_DENIED)
    );
    let state = |kind| {
        VpState {
            kind,
            ..VpState::default()
        }
        .encode()[8..]
            .to_vec()
    };
    let get = CallCode::GET_VP_STATE;
    assert_eq!(
        ask(get, CHILD, &state(tlfs::call::StateType::Timers)),
        Ok(())
    );
    assert_eq!(
        ask(get, CHILD, &state(tlfs::call::StateType::Xsave)),
        Err(HvError::ACCESS_DENIED),
        "pages"
    );
    assert_eq!(ask(get, CHILD, &[0; 8]), Err(HvError::INVALID_PARAMETER));
}

#[test]
fn self_means_the_attached_partition() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    pair.hello();
    let input = [&PARTITION_SELF.get().to_le_bytes()[..], &[9; 8]].concat();
    pair.user
        .send(&call(CallCode::GET_VP_REGISTERS, &input))
        .unwrap();
    let _ = pair.user.flush();
    let (_, body) = pair.step().unwrap();
    assert_eq!(body[8..16], CHILD.get().to_le_bytes());
    assert_eq!(body[16..], [9; 8]);
}

fn raw(
    writer: &mut Writer<Contiguous<'_>>,
    kind: PacketType,
    flags: PacketFlags,
    transaction: u64,
    payload: &[u8],
) {
    writer
        .put(&Outgoing {
            kind,
            flags,
            transaction,
            header: &[],
            payload: &[payload],
        })
        .unwrap();
    let _ = writer.commit();
}

#[test]
fn what_is_no_request_stops_the_channel_for_good() {
    let list = [
        &Header::new(Type::LIST, Generation(1), 8).encode()[..],
        &[0; 8],
    ]
    .concat();
    let short = Header::new(Type::LIST, Generation(1), 800).encode();
    let (in_band, wants) = (PacketType::IN_BAND, PacketFlags::COMPLETION_REQUESTED);
    for (kind, flags, transaction, payload, stop) in [
        (PacketType::COMPLETION, wants, 1, &list[..], Stop::Malformed),
        (in_band, PacketFlags::empty(), 1, &list, Stop::Malformed),
        (in_band, wants, 0, &list, Stop::Malformed),
        (in_band, wants, 1 << 63, &list, Stop::Malformed),
        (in_band, wants, 1, &short, Stop::Malformed),
        (in_band, wants, 1, &[], Stop::Malformed),
        (in_band, wants, 1, &list, Stop::NoHello),
    ] {
        let shared = Shared::new();
        let mut pair = Pair::new(&shared, ChannelKind::Control);
        raw(
            &mut Writer::new(shared.upstream.mem()).unwrap(),
            kind,
            flags,
            transaction,
            payload,
        );
        let stopped = format!("{:?}", Turn::Stopped(stop));
        assert_eq!(pair.step().unwrap_err(), stopped);
        assert_eq!(pair.step().unwrap_err(), stopped);
        assert_eq!(pair.receive(), None);
    }
}

#[test]
fn a_stopped_slot_comes_back_by_attach() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    pair.hello();
    pair.user.send(&Request::ResetDone).unwrap();
    let _ = pair.user.flush();
    let (ticket, _) = pair.step().unwrap();
    shared
        .upstream
        .mem()
        .set_control(Field::WriteIndex, 0xFFFF_FFFF);
    assert!(pair.step().unwrap_err().starts_with("Stopped(Corrupt"));
    assert!(
        pair.hv.complete(ticket, &Status::default().encode(), &[]),
        "to nobody"
    );
    pair.attach(&shared);
    pair.hello();
    assert_eq!(pair.ask(&Request::ResetDone), Ok(()));
}

#[test]
fn the_next_worker_sees_nothing_of_the_last_one() {
    let shared = Shared::new();
    let mut pair = Pair::new(&shared, ChannelKind::Slot);
    pair.hello();
    for _ in 0..3 {
        pair.user.send(&Request::ResetDone).unwrap();
    }
    let _ = pair.user.flush();
    let (ticket, _) = pair.step().unwrap();
    pair.hv.detach(SessionOver::Detached);
    let _ = pair.hv.flush(&pair.doorbell);
    let mut buffer = buffer();
    assert_eq!(
        pair.user.next(&mut buffer),
        Ok(Some(Incoming::Over(SessionOver::Detached)))
    );
    assert!(pair.step().unwrap_err().starts_with("Answered"), "refused");

    let old = pair.user.generation();
    let generation = pair.attach(&shared);
    assert_ne!(generation, old);
    assert!(
        shared
            .upstream
            .data
            .iter()
            .chain(&shared.downstream.data)
            .all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0)
    );
    pair.hello();
    assert!(pair.hv.is_busy());
    assert!(
        pair.hv.complete(ticket, &Status::default().encode(), &[]),
        "to nobody"
    );
    assert!(!pair.hv.is_busy());
    let _ = pair.hv.flush(&pair.doorbell);
    assert_eq!(pair.receive(), None);
}

#[test]
fn the_doorbell_rings_once_for_each_arming() {
    let shared = Shared::new();
    let (mem, doorbell) = (shared.downstream.mem(), Doorbell::<AtomicBool>::default());
    assert!(doorbell.ring(&mem));
    assert!(!doorbell.ring(&mem));
    mem.set_control(Field::InterruptMask, 1);
    doorbell.signalled(&mem);
    assert!(
        !doorbell.ring(&mem),
        "a signal of a worker that is awake arms nothing"
    );
    mem.set_control(Field::InterruptMask, 0);
    assert!(!doorbell.ring(&mem));
    doorbell.signalled(&mem);
    assert!(doorbell.ring(&mem));
    mem.set_control(Field::Attended, 1);
    doorbell.signalled(&mem);
    assert!(!doorbell.ring(&mem), "nobody sleeps");
    mem.set_control(Field::Attended, 0);
    assert!(doorbell.ring(&mem), "and the signal meanwhile armed it");
}

#[test]
fn events_and_signals_arrive_by_bit() {
    let shared = Shared::new();
    let events = Events::attach(&shared.area[..], Generation(4));
    let mut watcher = Watcher::new(&shared.area[..], Generation(4)).unwrap();
    assert!(!watcher.has_news());
    for relid in [0, 1, 63, 64, 2047, 2048, u32::MAX] {
        events.child_signalled(Relid(relid));
    }
    for vp in [0, 63, 64] {
        events.intercepted(VpIndex::new(vp));
    }
    events.fault(Faults::CRASHED);
    assert!(watcher.has_news());
    let mut seen = Vec::new();
    watcher.take_signals(|relid| seen.push(relid.0));
    assert_eq!(seen, [0, 1, 63, 64, 2047]);
    let news = watcher.take_news();
    assert_eq!((news.vps, news.faults), (1 << 63 | 1, Faults::CRASHED));
    assert!(!watcher.has_news());
    assert_eq!(watcher.take_news(), slots::News::default());
    assert_eq!(
        Watcher::new(&shared.area[..], Generation(5)).unwrap_err(),
        BadArea::Generation(4)
    );

    let page = SignalPage::new(&shared.signals[..], Generation(4));
    [7, 2047, 2048]
        .iter()
        .for_each(|relid| page.signal(Relid(*relid)));
    let collect = |generation| {
        let mut seen = Vec::new();
        collect_signals(&&shared.signals[..], Generation(generation), |relid| {
            seen.push(relid.0)
        });
        seen
    };
    assert!(collect(5).is_empty());
    assert_eq!(collect(4), [7, 2047]);
    assert!(collect(4).is_empty());
}

#[test]
fn a_full_queue_waits_for_the_head_and_a_bad_head_is_found() {
    let shared = Shared::new();
    let area = &shared.area[..];
    let events = Events::attach(area, Generation(1));
    let (mut queue, mut watcher) = (
        NoticeQueue::new(),
        Watcher::new(area, Generation(1)).unwrap(),
    );
    let notice = |relid| Notice::Close(Relid(relid));
    for relid in 0..NOTICE_COUNT {
        assert_eq!(queue.push(&events, &notice(relid)), Ok(()));
    }
    assert_eq!(queue.room(&events), Ok(0));
    assert_eq!(queue.push(&events, &notice(999)), Err(NoticeError::Full));
    assert_eq!(watcher.next_notice(), Ok(Some(notice(0))));
    assert_eq!(queue.push(&events, &notice(999)), Ok(()));
    let rest: Vec<_> = std::iter::from_fn(|| watcher.next_notice().unwrap()).collect();
    assert_eq!(rest.len(), NOTICE_COUNT as usize);
    assert_eq!(rest.last(), Some(&notice(999)));

    assert_eq!(queue.room(&events), Ok(NOTICE_COUNT));
    for head in [NOTICE_COUNT + 2, NOTICE_COUNT, 0, u32::MAX] {
        area.store(NOTICE_HEAD_WORD, u64::from(head));
        assert_eq!(
            queue.push(&events, &notice(1)),
            Err(NoticeError::BadHead),
            "{head}"
        );
    }
}
