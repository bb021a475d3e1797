//! Three partitions that make ports, connect, send, take and go, against queues and lines that are plain lists.

mod step;

use std::collections::{BTreeMap, VecDeque};

use addr::{Gpa, PartitionId, VpIndex};
use ports::{Connections, EventTarget, PortRef, Ports, QUEUE_MESSAGES, Target};
use synic::MessageSource;
use tlfs::call::{ConnectionId, ConnectionKind, Doorbell, PortId, PortInfo, PortKind};
use tlfs::{HvError, MessageType};

use super::pool::Pool;

pub use step::{Step, run};

const PARTITIONS: usize = 3;
const ANY_VP: u32 = u32::MAX;
/// The line of doorbells; messages have one for each source.
const DOORBELLS: usize = 16;
/// Chunks that a port takes at most: chains and records of ports and of VPs, and its queue.
const PORT_CHUNKS: usize = 4 + QUEUE_MESSAGES as usize / 16;

fn is_number(id: u32) -> bool {
    id <= 0xFF_FFFF
}

#[derive(Debug)]
struct Port {
    /// Tells it from others with the same number.
    reference: PortRef,
    sender: PartitionId,
    info: PortInfo,
    messages: VecDeque<Vec<u8>>,
}

impl Port {
    fn target(&self) -> Target {
        let vp = self.info.vp;
        Target {
            vp: (vp.get() != ANY_VP).then_some(vp),
            sint: self.info.sint.get(),
        }
    }

    fn line(&self) -> (u32, usize) {
        let line = match self.info.kind {
            PortKind::Doorbell => DOORBELLS,
            _ => self.info.sint.get().into(),
        };
        (self.info.vp.get(), line)
    }
}

struct Partition {
    id: PartitionId,
    pool: Pool,
    ports: Ports,
    connections: Connections,
    /// The model of `ports`.
    by_number: BTreeMap<u32, Port>,
    lines: BTreeMap<(u32, usize), VecDeque<u32>>,
    /// The model of `connections`: doorbells have numbers of their own.
    connected: BTreeMap<(u32, bool), (PortRef, ConnectionKind)>,
}

impl Partition {
    fn new(id: u64, memory: usize) -> Self {
        let id = PartitionId::new(id);
        Self {
            id,
            pool: Pool::new(memory),
            ports: Ports::new(id),
            connections: Connections::new(),
            by_number: BTreeMap::new(),
            lines: BTreeMap::new(),
            connected: BTreeMap::new(),
        }
    }

    fn create(&mut self, id: u32, sender: PartitionId, info: PortInfo) {
        let (left, used) = (self.pool.left, self.pool.frames.len());
        let result = self.ports.create(PortId(id), sender, &info, &mut self.pool);
        if id == 0 || !is_number(id) || self.by_number.contains_key(&id) {
            assert_eq!(result, Err(HvError::INVALID_PORT_ID));
            return;
        }
        if let PortKind::Event { base, count } = info.kind
            && !(1..=2048 - u32::from(base.min(2048))).contains(&count.into())
        {
            assert_eq!(result, Err(HvError::INVALID_PARAMETER));
            return;
        }
        if result == Err(HvError::INSUFFICIENT_MEMORY) {
            assert!(left < PORT_CHUNKS, "{left} chunks are not enough");
            // What records are in may stay for the next attempt; queues do not.
            assert!(self.pool.frames.len() <= used + 4);
            return;
        }
        assert_eq!(result, Ok(()));
        let kind = match info.kind {
            PortKind::Message => ConnectionKind::Message,
            PortKind::Event { .. } => ConnectionKind::Event,
            PortKind::Doorbell => ConnectionKind::Doorbell(Doorbell::default()),
        };
        let found = self
            .ports
            .connectable(PortId(id), sender, &kind, &mut self.pool);
        let port = Port {
            reference: found.unwrap(),
            sender,
            info,
            messages: VecDeque::new(),
        };
        self.by_number.insert(id, port);
    }

    fn delete(&mut self, id: u32) {
        let result = self.ports.delete(PortId(id), &mut self.pool);
        match self.by_number.remove(&id) {
            None => assert_eq!(result, Err(HvError::INVALID_PORT_ID)),
            Some(_) => {
                assert_eq!(result, Ok(()));
                for line in self.lines.values_mut() {
                    line.retain(|port| *port != id);
                }
            }
        }
    }

    /// The port that `to` names, if it is still there.
    fn named(&mut self, to: PortRef, is: impl Fn(PortKind) -> bool) -> Option<&mut Port> {
        let port = self.by_number.get_mut(&to.port.0)?;
        (port.reference == to && is(port.info.kind)).then_some(port)
    }

    fn line_up(&mut self, port: u32) {
        let line = self.lines.entry(self.by_number[&port].line()).or_default();
        if !line.contains(&port) {
            line.push_back(port);
        }
    }

    fn post(&mut self, to: PortRef, kind: MessageType, payload: &[u8]) {
        let result = self.ports.post(to, kind, payload, &mut self.pool);
        if kind.0 == 0 || kind.is_from_hypervisor() || payload.len() > 240 {
            assert_eq!(result, Err(HvError::INVALID_PARAMETER));
            return;
        }
        let Some(port) = self.named(to, |kind| kind == PortKind::Message) else {
            assert_eq!(result, Err(HvError::INVALID_PORT_ID));
            return;
        };
        if port.messages.len() == usize::from(QUEUE_MESSAGES) {
            assert_eq!(result, Err(HvError::INSUFFICIENT_BUFFERS));
            return;
        }
        assert_eq!(result, Ok(port.target()));
        port.messages.push_back(payload.to_vec());
        self.line_up(to.port.0);
    }

    fn event(&mut self, to: PortRef, flag: u16) {
        let result = self.ports.event(to, flag, &mut self.pool);
        let port = self.named(to, |kind| matches!(kind, PortKind::Event { .. }));
        let expected = match port.map(|port| (port.target(), port.info.kind)) {
            Some((target, PortKind::Event { base, count })) if flag < count => Ok(EventTarget {
                target,
                flag: base + flag,
            }),
            Some(_) => Err(HvError::INVALID_PARAMETER),
            None => Err(HvError::INVALID_PORT_ID),
        };
        assert_eq!(result, expected);
        assert!(result.is_err() || result.is_ok_and(|event| event.flag < 2048));
    }

    fn ring(&mut self, to: PortRef) {
        let result = self.ports.doorbell(to, &mut self.pool);
        let port = self.named(to, |kind| kind == PortKind::Doorbell);
        let is_there = port.is_some();
        let expected = port.map(|port| port.target());
        assert_eq!(result, expected.ok_or(HvError::INVALID_PORT_ID));
        // Whatever the number names now is not rung unless it is a doorbell.
        self.ports.keep_rung(to.port, &mut self.pool);
        let named = self.by_number.get(&to.port.0);
        if is_there || named.is_some_and(|port| port.info.kind == PortKind::Doorbell) {
            self.line_up(to.port.0);
        }
    }

    /// Ports at the heads of the lines of `vp` and of any.
    fn heads(&self, vp: u32, line: usize) -> [Option<u32>; 2] {
        [vp, ANY_VP].map(|vp| self.lines.get(&(vp, line))?.front().copied())
    }

    fn take(&mut self, vp: u32, sint: usize) {
        let mask = (0..DOORBELLS).fold(0, |mask, sint| {
            let is_waiting = self.heads(vp, sint) != [None; 2];
            mask | u16::from(is_waiting) << sint
        });
        let [own, any] = self.heads(vp, sint);
        let mut source = self.ports.messages(VpIndex::new(vp), &mut self.pool);
        assert_eq!(source.waiting(), mask);
        let first = source.first(sint);
        let Some(id) = own.or(any) else {
            assert_eq!(first, None);
            source.pop(sint);
            return;
        };
        let (message, is_more) = first.unwrap();
        source.pop(sint);
        let port = self.by_number.get_mut(&id).unwrap();
        let payload = port.messages.pop_front().unwrap();
        assert_eq!(message.origin(), u64::from(id));
        assert_eq!(message.payload(), payload);
        let (line, is_empty) = (port.line(), port.messages.is_empty());
        self.lines.entry(line).or_default().pop_front();
        if !is_empty {
            self.line_up(id);
        }
        assert_eq!(is_more, self.heads(vp, sint) != [None; 2]);
    }

    fn take_rung(&mut self, vp: u32) {
        let taken = self.ports.next_rung(VpIndex::new(vp), &mut self.pool);
        let [own, any] = self.heads(vp, DOORBELLS);
        let expected = own.or(any).map(|id| {
            let port = &self.by_number[&id];
            self.lines.entry(port.line()).or_default().pop_front();
            (PortId(id), port.info.sint.get())
        });
        assert_eq!(taken, expected);
    }

    fn connect(&mut self, id: u32, to: PortRef, kind: ConnectionKind) {
        let (left, used) = (self.pool.left, self.pool.frames.len());
        let result = self
            .connections
            .connect(ConnectionId(id), to, kind, &mut self.pool);
        let is_doorbell = matches!(kind, ConnectionKind::Doorbell(_));
        let is_taken = self.connected.contains_key(&(id, is_doorbell));
        let same = |(_, other): &(PortRef, ConnectionKind)| is_doorbell && *other == kind;
        if !is_number(id) || is_taken {
            assert_eq!(result, Err(HvError::INVALID_CONNECTION_ID));
        } else if self.connected.values().any(same) {
            assert_eq!(result, Err(HvError::INVALID_PARAMETER));
        } else if result == Err(HvError::INSUFFICIENT_MEMORY) {
            assert!(left < 2 && self.pool.frames.len() <= used + 1);
        } else {
            assert_eq!(result, Ok(()));
            self.connected.insert((id, is_doorbell), (to, kind));
        }
    }

    fn disconnect(&mut self, id: u32, is_doorbell: bool) {
        let result = self
            .connections
            .disconnect(ConnectionId(id), is_doorbell, &mut self.pool);
        let is_there = self.connected.remove(&(id, is_doorbell)).is_some();
        let unknown = Err(HvError::INVALID_CONNECTION_ID);
        assert_eq!(result, if is_there { Ok(()) } else { unknown });
    }

    /// Where a connection of `kind` leads.
    fn connection(&mut self, id: u32, kind: ConnectionKind) -> Option<PortRef> {
        let found = match kind {
            ConnectionKind::Event => self.connections.event(ConnectionId(id), &mut self.pool),
            _ => self.connections.message(ConnectionId(id), &mut self.pool),
        };
        let connected = self.connected.get(&(id, false));
        let expected = connected
            .filter(|(_, found)| *found == kind)
            .map(|(to, _)| *to);
        assert_eq!(found, expected.ok_or(HvError::INVALID_CONNECTION_ID));
        expected
    }

    /// Which port a write rings: one for its value before one for any.
    fn rung_by(&mut self, gpa: u64, bytes: u8, value: u64) -> Option<PortRef> {
        let found = self
            .connections
            .doorbell(Gpa::new(gpa), bytes, value, &mut self.pool);
        let matching = |wanted: Option<u64>| -> Vec<PortRef> {
            let all = self.connected.values();
            all.filter(|(_, kind)| {
                matches!(kind, ConnectionKind::Doorbell(bell) if bell.gpa.get() == gpa
                    && bell.value == wanted && bell.bytes.is_none_or(|wanted| wanted == bytes))
            })
            .map(|(to, _)| *to)
            .collect()
        };
        let mut expected = matching(Some(value));
        if expected.is_empty() {
            expected = matching(None);
        }
        match found {
            Some(to) => assert!(expected.contains(&to)),
            None => assert!(expected.is_empty()),
        }
        found
    }

    fn check(&self) {
        let takes = |port: &Port| !matches!(port.info.kind, PortKind::Event { .. });
        assert!(!self.ports.is_quiet() || !self.by_number.values().any(takes));
        assert!(!self.connections.is_empty() || self.connected.is_empty());
    }

    /// Everything comes back, in no more steps than there are chunks.
    fn end(mut self) {
        let mut steps = self.pool.frames.len();
        while self.ports.release(&mut self.pool) || self.connections.release(&mut self.pool) {
            steps = steps.checked_sub(1).expect("a step gave nothing back");
        }
        assert!(self.pool.frames.is_empty());
    }
}
