//! What ports and connections do.

mod pool;

use addr::{Gpa, PartitionId, VpIndex};
use pool::Pool;
use ports::{Connections, EventTarget, PortRef, Ports, QUEUE_MESSAGES, Target};
use synic::MessageSource;
use tlfs::call::{ConnectionId, ConnectionKind, Doorbell, PortId, PortInfo, PortKind};
use tlfs::wire::SintIndex;
use tlfs::{HvError, MessageType};

const OWNER: PartitionId = PartitionId::new(1);
const SENDER: PartitionId = PartitionId::new(0x402);
const ANY: VpIndex = VpIndex::new(u32::MAX);

fn info(kind: PortKind, sint: u8, vp: VpIndex) -> PortInfo {
    PortInfo {
        kind,
        sint: SintIndex::new(sint),
        vp,
    }
}

fn message_port(sint: u8, vp: u32) -> PortInfo {
    info(PortKind::Message, sint, VpIndex::new(vp))
}

fn drain(ports: &mut Ports, vp: u32, sint: usize, pool: &mut Pool) -> Vec<(u64, Vec<u8>, bool)> {
    let mut source = ports.messages(VpIndex::new(vp), pool);
    let mut out = Vec::new();
    while let Some((message, more)) = source.first(sint) {
        assert!(source.waiting() & 1 << sint != 0);
        out.push((message.origin(), message.payload().to_vec(), more));
        source.pop(sint);
    }
    assert!(source.waiting() & 1 << sint == 0);
    out
}

#[test]
fn messages_of_a_port_come_in_order_and_ports_take_turns() {
    let (mut ports, mut pool) = (Ports::new(OWNER), Pool::new(100));
    for id in [1, 2] {
        ports
            .create(PortId(id), SENDER, &message_port(2, 0), &mut pool)
            .unwrap();
    }
    let [one, two] = [1, 2].map(|id| {
        let found = ports.connectable(PortId(id), SENDER, &ConnectionKind::Message, &mut pool);
        found.unwrap()
    });
    for n in 0..3 {
        let target = ports.post(one, MessageType(1), &[n], &mut pool).unwrap();
        assert_eq!(
            target,
            Target {
                vp: Some(VpIndex::new(0)),
                sint: 2
            }
        );
    }
    ports.post(two, MessageType(1), &[9], &mut pool).unwrap();
    assert!(drain(&mut ports, 1, 2, &mut pool).is_empty());
    assert!(drain(&mut ports, 0, 3, &mut pool).is_empty());
    let taken = drain(&mut ports, 0, 2, &mut pool);
    let expected: Vec<(u64, Vec<u8>, bool)> =
        [(1, 0, true), (2, 9, true), (1, 1, true), (1, 2, false)]
            .map(|(o, n, m)| (o, [n].to_vec(), m))
            .into();
    assert_eq!(taken, expected);
}

#[test]
fn a_full_port_blocks_no_other_and_takes_messages_again() {
    let (mut ports, mut pool) = (Ports::new(OWNER), Pool::new(100));
    let mut refs = Vec::new();
    for id in [1, 2] {
        ports
            .create(PortId(id), SENDER, &message_port(2, 0), &mut pool)
            .unwrap();
        refs.push(
            ports
                .connectable(PortId(id), SENDER, &ConnectionKind::Message, &mut pool)
                .unwrap(),
        );
    }
    pool.left = 0;
    for n in 0..QUEUE_MESSAGES {
        ports
            .post(refs[0], MessageType(1), &n.to_le_bytes(), &mut pool)
            .unwrap();
    }
    let full = ports.post(refs[0], MessageType(1), &[], &mut pool);
    assert_eq!(full, Err(HvError::INSUFFICIENT_BUFFERS));
    assert!(ports.post(refs[1], MessageType(1), &[], &mut pool).is_ok());
    assert_eq!(
        drain(&mut ports, 0, 2, &mut pool).len(),
        usize::from(QUEUE_MESSAGES) + 1
    );
    assert!(ports.post(refs[0], MessageType(1), &[], &mut pool).is_ok());
    assert_eq!(
        ports.post(refs[0], MessageType(0), &[], &mut pool),
        Err(HvError::INVALID_PARAMETER)
    );
    assert_eq!(
        ports.post(refs[0], MessageType(1 << 31), &[], &mut pool),
        Err(HvError::INVALID_PARAMETER)
    );
    assert_eq!(
        ports.post(refs[0], MessageType(1), &[0; 241], &mut pool),
        Err(HvError::INVALID_PARAMETER)
    );
}

#[test]
fn a_connection_to_a_deleted_port_leads_nowhere_even_when_the_number_is_used_again() {
    let (mut ports, mut connections, mut pool) =
        (Ports::new(OWNER), Connections::new(), Pool::new(100));
    let kind = ConnectionKind::Message;
    ports
        .create(PortId(7), SENDER, &message_port(2, 0), &mut pool)
        .unwrap();
    let to = ports
        .connectable(PortId(7), SENDER, &kind, &mut pool)
        .unwrap();
    connections
        .connect(ConnectionId(3), to, kind, &mut pool)
        .unwrap();
    let through =
        |connections: &Connections, pool: &mut Pool| connections.message(ConnectionId(3), pool);
    assert_eq!(through(&connections, &mut pool), Ok(to));
    for _ in 0..2 {
        ports.post(to, MessageType(1), &[], &mut pool).unwrap();
    }
    ports.delete(PortId(7), &mut pool).unwrap();
    assert_eq!(
        ports.delete(PortId(7), &mut pool),
        Err(HvError::INVALID_PORT_ID)
    );
    let gone = Err(HvError::INVALID_PORT_ID);
    assert_eq!(ports.post(to, MessageType(1), &[], &mut pool), gone);
    ports
        .create(PortId(7), SENDER, &message_port(2, 0), &mut pool)
        .unwrap();
    assert_eq!(ports.post(to, MessageType(1), &[], &mut pool), gone);
    assert!(drain(&mut ports, 0, 2, &mut pool).is_empty());
    connections
        .disconnect(ConnectionId(3), false, &mut pool)
        .unwrap();
    let unknown = Err(HvError::INVALID_CONNECTION_ID);
    assert_eq!(through(&connections, &mut pool), unknown);
    assert_eq!(
        connections.disconnect(ConnectionId(3), false, &mut pool),
        Err(HvError::INVALID_CONNECTION_ID)
    );
    // A port of the same number in another partition is another port.
    let mut other = Ports::new(PartitionId::new(9));
    other
        .create(PortId(7), SENDER, &message_port(2, 0), &mut pool)
        .unwrap();
    assert_eq!(other.post(to, MessageType(1), &[], &mut pool), gone);
}

#[test]
fn only_the_named_sender_connects_and_only_with_the_right_kind() {
    let (mut ports, mut pool) = (Ports::new(OWNER), Pool::new(100));
    ports
        .create(
            PortId(1),
            SENDER,
            &info(PortKind::Event { base: 10, count: 2 }, 5, ANY),
            &mut pool,
        )
        .unwrap();
    let mut ask = |sender, kind| ports.connectable(PortId(1), sender, &kind, &mut pool);
    assert_eq!(
        ask(OWNER, ConnectionKind::Event),
        Err(HvError::INVALID_PORT_ID)
    );
    assert_eq!(
        ask(SENDER, ConnectionKind::Message),
        Err(HvError::INVALID_PARAMETER)
    );
    let to = ask(SENDER, ConnectionKind::Event).unwrap();
    let target = Target { vp: None, sint: 5 };
    assert_eq!(
        ports.event(to, 1, &mut pool),
        Ok(EventTarget { target, flag: 11 })
    );
    assert_eq!(
        ports.event(to, 2, &mut pool),
        Err(HvError::INVALID_PARAMETER)
    );
    assert_eq!(
        ports.post(to, MessageType(1), &[], &mut pool),
        Err(HvError::INVALID_PORT_ID)
    );
    assert!(ports.is_quiet());
}

#[test]
fn numbers_out_of_range_or_in_use_are_refused() {
    let (mut ports, mut connections, mut pool) =
        (Ports::new(OWNER), Connections::new(), Pool::new(100));
    let port = message_port(0, 0);
    for id in [0, 0x100_0000] {
        assert_eq!(
            ports.create(PortId(id), SENDER, &port, &mut pool),
            Err(HvError::INVALID_PORT_ID)
        );
    }
    let event = |base, count| info(PortKind::Event { base, count }, 2, ANY);
    for (base, count) in [(0, 0), (2048, 1), (1, 2048), (u16::MAX, u16::MAX)] {
        assert_eq!(
            ports.create(PortId(1), SENDER, &event(base, count), &mut pool),
            Err(HvError::INVALID_PARAMETER)
        );
    }
    ports.create(PortId(1), SENDER, &port, &mut pool).unwrap();
    assert_eq!(
        ports.create(PortId(1), SENDER, &event(0, 1), &mut pool),
        Err(HvError::INVALID_PORT_ID)
    );
    let kind = ConnectionKind::Message;
    let to = ports
        .connectable(PortId(1), SENDER, &kind, &mut pool)
        .unwrap();
    assert_eq!(
        connections.connect(ConnectionId(0x100_0000), to, kind, &mut pool),
        Err(HvError::INVALID_CONNECTION_ID)
    );
    connections
        .connect(ConnectionId(1), to, kind, &mut pool)
        .unwrap();
    assert_eq!(
        connections.connect(ConnectionId(1), to, kind, &mut pool),
        Err(HvError::INVALID_CONNECTION_ID)
    );
    assert_eq!(
        connections.event(ConnectionId(1), &mut pool),
        Err(HvError::INVALID_CONNECTION_ID)
    );
}

#[test]
fn any_vp_takes_what_is_for_any() {
    let (mut ports, mut pool) = (Ports::new(OWNER), Pool::new(100));
    ports
        .create(
            PortId(1),
            SENDER,
            &info(PortKind::Message, 2, ANY),
            &mut pool,
        )
        .unwrap();
    let to = ports
        .connectable(PortId(1), SENDER, &ConnectionKind::Message, &mut pool)
        .unwrap();
    for vp in [0, 5] {
        assert_eq!(
            ports.post(to, MessageType(1), &[], &mut pool).unwrap().vp,
            None
        );
        assert_eq!(drain(&mut ports, vp, 2, &mut pool).len(), 1);
    }
}

/// Port `id` for doorbells, and connection `id` of `kind` that leads there.
fn doorbell(
    ports: &mut Ports,
    connections: &mut Connections,
    pool: &mut Pool,
    id: u32,
    kind: ConnectionKind,
) -> PortRef {
    let info = info(PortKind::Doorbell, 5, ANY);
    ports.create(PortId(id), SENDER, &info, pool).unwrap();
    let to = ports.connectable(PortId(id), SENDER, &kind, pool).unwrap();
    connections
        .connect(ConnectionId(id), to, kind, pool)
        .unwrap();
    to
}

#[test]
fn a_doorbell_rings_for_its_value_before_any_and_is_remembered_once() {
    let (mut ports, mut connections, mut pool) =
        (Ports::new(OWNER), Connections::new(), Pool::new(100));
    let bell = |gpa, value, bytes| {
        ConnectionKind::Doorbell(Doorbell {
            gpa: Gpa::new(gpa),
            value,
            bytes,
        })
    };
    let kinds = [
        bell(0x1000, Some(3), Some(4)),
        bell(0x1000, None, Some(4)),
        bell(0x1000, Some(3), None),
        bell(0x1004, None, None),
    ];
    for (id, kind) in (1..).zip(kinds) {
        let to = doorbell(&mut ports, &mut connections, &mut pool, id, kind);
        let twice = connections.connect(ConnectionId(id + 100), to, kind, &mut pool);
        assert_eq!(twice, Err(HvError::INVALID_PARAMETER));
    }
    let port = |connections: &Connections, pool: &mut Pool, gpa, bytes, value| {
        connections
            .doorbell(Gpa::new(gpa), bytes, value, pool)
            .map(|to| to.port.0)
    };
    for (gpa, bytes, value, rings) in [
        (0x1000, 2, 3, Some(3)),
        (0x1000, 4, 4, Some(2)),
        (0x1000, 2, 4, None),
        (0x1004, 1, 0, Some(4)),
        (0x1001, 4, 3, None),
    ] {
        assert_eq!(
            port(&connections, &mut pool, gpa, bytes, value),
            rings,
            "{gpa:#x} {bytes} {value}"
        );
    }
    connections
        .disconnect(ConnectionId(3), true, &mut pool)
        .unwrap();
    assert_eq!(port(&connections, &mut pool, 0x1000, 4, 3), Some(1));
    connections
        .disconnect(ConnectionId(1), true, &mut pool)
        .unwrap();
    assert_eq!(port(&connections, &mut pool, 0x1000, 4, 3), Some(2));
    let to = connections
        .doorbell(Gpa::new(0x1004), 1, 0, &mut pool)
        .unwrap();
    assert_eq!(
        ports.doorbell(to, &mut pool),
        Ok(Target { vp: None, sint: 5 })
    );
    for _ in 0..3 {
        ports.keep_rung(PortId(4), &mut pool);
        ports.keep_rung(PortId(2), &mut pool);
    }
    ports.delete(PortId(2), &mut pool).unwrap();
    let vp = VpIndex::new(1);
    assert_eq!(ports.next_rung(vp, &mut pool), Some((PortId(4), 5)));
    assert_eq!(ports.next_rung(vp, &mut pool), None);
}

#[test]
fn thousands_of_ports_and_connections_fit_and_go() {
    let (mut ports, mut connections, mut pool) =
        (Ports::new(OWNER), Connections::new(), Pool::new(1000));
    for id in 1..=5000 {
        let kind = ConnectionKind::Doorbell(Doorbell {
            gpa: Gpa::new(0xFE00_0000),
            value: Some(id.into()),
            bytes: Some(2),
        });
        doorbell(&mut ports, &mut connections, &mut pool, id, kind);
    }
    for id in (1..=5000).step_by(7) {
        let to = connections
            .doorbell(Gpa::new(0xFE00_0000), 2, id.into(), &mut pool)
            .unwrap();
        assert_eq!(to.port, PortId(id));
    }
    while ports.release(&mut pool) {}
    while connections.release(&mut pool) {}
    assert!(pool.frames.is_empty());
    assert!(
        ports
            .create(PortId(1), SENDER, &message_port(0, 0), &mut pool)
            .is_ok()
    );
}
