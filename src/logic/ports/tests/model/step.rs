//! What happens, to which partition, port and connection.

use addr::{Gpa, VpIndex};
use arbitrary::Arbitrary;
use tlfs::call::{ConnectionKind, Doorbell, PortId, PortInfo, PortKind};
use tlfs::wire::SintIndex;
use tlfs::{HvError, MessageType};

use super::{ANY_VP, DOORBELLS, PARTITIONS, Partition};

/// What happens next. The first number says whose ports or connections they are. Where a step wants a port or connection that
/// is there, it mostly gets one: steps that meet nothing try little.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    Create {
        who: u8,
        port: u8,
        sender: u8,
        kind: u8,
        flags: (u16, u16),
        sint: u8,
        vp: u8,
    },
    Delete(u8, u8),
    Connect {
        who: u8,
        connection: u8,
        to: u8,
        port: u8,
        kind: u8,
        write: Write,
    },
    Disconnect(u8, u8, bool),
    /// Through a connection: type, length, how often.
    Post(u8, u8, u8, u8, u8),
    Event(u8, u8, u16),
    Ring(u8, Write),
    /// For a VP, from a source, how often.
    Take(u8, u8, u8, u8),
    TakeRung(u8, u8),
    /// The partition goes, and another comes, when the second number says so.
    Die(u8, u8),
    /// So many chunks are left in the pool.
    Memory(u8, u8),
}

/// A write, or which ones ring.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Write {
    gpa: u8,
    value: Option<u8>,
    bytes: u8,
}

impl Write {
    fn doorbell(self) -> Doorbell {
        Doorbell {
            gpa: Gpa::new((self.gpa % 4).into()),
            value: self.value.map(|value| (value % 4).into()),
            bytes: [None, Some(1), Some(2), Some(4)][usize::from(self.bytes % 4)],
        }
    }
}

/// Few different numbers, so that steps meet, and some out of range.
fn number(number: u8) -> u32 {
    match number {
        0 => 0,
        253.. => 0xFF_FFFE + u32::from(number - 252),
        _ => u32::from(number % 6) + 1,
    }
}

fn vp_of(vp: u8) -> u32 {
    match vp % 3 {
        2 => ANY_VP,
        vp => vp.into(),
    }
}

/// Runs `steps` with so many chunks for each partition, and panics where ports and connections do not as the model.
pub fn run(memory: usize, steps: &[Step]) {
    let mut world: [Partition; PARTITIONS] =
        std::array::from_fn(|index| Partition::new(index as u64 + 1, memory));
    let mut serial = 0u64;
    for step in steps {
        serial += 1;
        one(&mut world, *step, serial);
        world.iter().for_each(Partition::check);
    }
    world.into_iter().for_each(Partition::end);
}

fn one(world: &mut [Partition; PARTITIONS], step: Step, serial: u64) {
    let place = |who: u8| usize::from(who) % PARTITIONS;
    match step {
        Step::Create {
            who,
            port,
            sender,
            kind,
            flags: (base, count),
            sint,
            vp,
        } => {
            let sender = world[place(sender)].id;
            let kind = match kind % 4 {
                0 => PortKind::Doorbell,
                1 => PortKind::Event { base, count },
                _ => PortKind::Message,
            };
            let info = PortInfo {
                kind,
                sint: SintIndex::new(sint % 16),
                vp: VpIndex::new(vp_of(vp)),
            };
            world[place(who)].create(number(port), sender, info);
        }
        Step::Delete(who, port) => world[place(who)].delete(number(port)),
        Step::Connect {
            who,
            connection,
            to,
            port,
            kind,
            write,
        } => {
            let kind = match kind % 4 {
                0 => ConnectionKind::Doorbell(write.doorbell()),
                1 => ConnectionKind::Event,
                _ => ConnectionKind::Message,
            };
            let port = PortId(number(port));
            let there = world[place(to)].by_number.get(&port.0);
            // Mostly the one that may, and of the kind that is taken.
            let mut who = place(who);
            let mut kind = kind;
            if let Some(there) = there.filter(|_| write.gpa < 224) {
                let sender = world.iter().position(|other| other.id == there.sender);
                who = sender.unwrap_or(who);
                kind = match (there.info.kind, kind) {
                    (PortKind::Message, _) => ConnectionKind::Message,
                    (PortKind::Event { .. }, _) => ConnectionKind::Event,
                    (PortKind::Doorbell, ConnectionKind::Doorbell(_)) => kind,
                    (PortKind::Doorbell, _) => ConnectionKind::Doorbell(write.doorbell()),
                };
            }
            let sender = world[who].id;
            let to = &mut world[place(to)];
            let found = to.ports.connectable(port, sender, &kind, &mut to.pool);
            let there = to
                .by_number
                .get(&port.0)
                .filter(|port| port.sender == sender);
            let expected = match there {
                None => Err(HvError::INVALID_PORT_ID),
                Some(there) => match (there.info.kind, kind) {
                    (PortKind::Message, ConnectionKind::Message)
                    | (PortKind::Event { .. }, ConnectionKind::Event)
                    | (PortKind::Doorbell, ConnectionKind::Doorbell(_)) => Ok(there.reference),
                    _ => Err(HvError::INVALID_PARAMETER),
                },
            };
            assert_eq!(found, expected);
            if let Ok(found) = found {
                world[who].connect(number(connection), found, kind);
            }
        }
        Step::Disconnect(who, connection, is_doorbell) => {
            world[place(who)].disconnect(number(connection), is_doorbell);
        }
        Step::Post(who, connection, kind, len, times) => {
            let mut payload = vec![0; len.into()];
            for (byte, serial) in payload.iter_mut().zip(serial.to_le_bytes()) {
                *byte = serial;
            }
            let id = some_connection(&world[place(who)], connection, ConnectionKind::Message);
            let to = world[place(who)].connection(id, ConnectionKind::Message);
            let kind = match kind {
                0 => 0,
                255 => 1 << 31,
                kind => kind.into(),
            };
            // Few of them fill a queue, and not at once.
            let times = if times < 224 { times % 8 } else { times };
            // Through a name that is not its own, no partition is reached.
            for other in world.iter_mut().filter(|_| to.is_some()) {
                for _ in 0..=times {
                    to.into_iter()
                        .for_each(|to| other.post(to, MessageType(kind), &payload));
                }
            }
        }
        Step::Event(who, connection, flag) => {
            let id = some_connection(&world[place(who)], connection, ConnectionKind::Event);
            let to = world[place(who)].connection(id, ConnectionKind::Event);
            let flag = if flag % 4 == 0 { flag } else { flag % 16 };
            for other in world.iter_mut() {
                to.into_iter().for_each(|to| other.event(to, flag));
            }
        }
        Step::Ring(who, write) => {
            let value = write.value.unwrap_or(u8::MAX);
            let bytes = [1, 2, 4, 8][usize::from(write.bytes % 4)];
            let value = if value < 128 { value % 4 } else { value };
            let to = world[place(who)].rung_by((write.gpa % 4).into(), bytes, value.into());
            for other in world.iter_mut() {
                to.into_iter().for_each(|to| other.ring(to));
            }
        }
        Step::Take(who, vp, sint, times) => {
            // Mostly from where something waits.
            let lines = world[place(who)].lines.iter();
            let waiting: Vec<usize> = lines
                .filter(|((_, line), ports)| *line < DOORBELLS && !ports.is_empty())
                .map(|((_, line), _)| *line)
                .collect();
            let sint = match waiting.get(usize::from(sint % 16) % waiting.len().max(1)) {
                Some(line) if sint < 224 => *line,
                _ => (sint % 16).into(),
            };
            let times = if times < 224 { times % 4 } else { times };
            for _ in 0..=times {
                world[place(who)].take((vp % 3).into(), sint);
            }
        }
        Step::TakeRung(who, vp) => world[place(who)].take_rung((vp % 3).into()),
        Step::Die(_, doubt) if doubt % 8 != 0 => {}
        Step::Die(who, _) => {
            let memory = world[place(who)].pool.left;
            let new = Partition::new(serial + 1000, memory);
            std::mem::replace(&mut world[place(who)], new).end();
        }
        Step::Memory(who, chunks) => {
            let chunks = if chunks < 64 { chunks / 2 } else { 250 };
            world[place(who)].pool.left = chunks.into();
        }
    }
}

/// The number of one of the connections of `kind` that are there, if there are any, and mostly.
fn some_connection(partition: &Partition, choice: u8, kind: ConnectionKind) -> u32 {
    let all = partition.connected.iter();
    let there: Vec<u32> = all
        .filter(|(_, (_, other))| *other == kind)
        .map(|((id, _), _)| *id)
        .collect();
    match there.get(usize::from(choice) % there.len().max(1)) {
        Some(id) if choice < 224 => *id,
        _ => number(choice),
    }
}
