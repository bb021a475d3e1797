//! A peer that writes anything, and the rules that this side keeps whatever it says. Fuzzing uses it as well.

use std::sync::atomic::AtomicBool;

use addr::PartitionId;
use ring::{Contiguous, Outgoing, Reader, RingMem, Writer};
use ring_proto::{Control, PacketFlags, PacketType};
use slot_proto::{Generation, Header, MAX_PACKET_BYTES, SessionOver, Status, Type, split};
use slots::{
    Attachment, Channel, Client, Doorbell, Generations, Identity, MAX_OUTSTANDING, Ticket, Turn,
};

const ATTACHMENT: Attachment = Attachment {
    partition: PartitionId::new(5),
    has_vmbus: false,
    is_finalized: false,
};

const FIELDS: [Control; 5] = [
    Control::WriteIndex,
    Control::ReadIndex,
    Control::InterruptMask,
    Control::PendingSendSize,
    Control::Features,
];

/// What happens next, on either side.
#[derive(Clone, Debug)]
pub enum Step {
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
    /// A field of a ring's control page, by its number modulo theirs.
    Field {
        is_up: bool,
        field: usize,
        value: u32,
    },
    /// A word of a ring, by its offset.
    Word { is_up: bool, at: u32, word: u64 },
    /// The hypervisor looks at what has come.
    Serve,
    /// The hypervisor is done with a request, by its number modulo theirs.
    Complete(usize),
    /// The slot is attached anew.
    Attach,
    /// It is detached.
    Detach,
    /// User space takes a packet.
    Take,
}

/// A channel with the hypervisor on one side, and on the other what steps say.
pub struct Session<'a> {
    upstream: Contiguous<'a>,
    downstream: Contiguous<'a>,
    hv: Channel<Contiguous<'a>>,
    generations: Generations,
    doorbell: Doorbell<AtomicBool>,
    writer: Writer<Contiguous<'a>>,
    reader: Reader<Contiguous<'a>>,
    tickets: Vec<Ticket>,
    /// Whether the peer wrote into the rings themselves: then nothing is promised of what lies in them.
    is_broken: bool,
    buffer: Box<[u8; MAX_PACKET_BYTES]>,
}

impl<'a> Session<'a> {
    /// A channel on rings that are empty.
    pub fn open(identity: Identity, upstream: Contiguous<'a>, downstream: Contiguous<'a>) -> Self {
        Self {
            upstream,
            downstream,
            hv: Channel::open(identity, upstream, downstream).unwrap(),
            generations: Generations::new(),
            doorbell: Doorbell::default(),
            writer: Writer::new(upstream).unwrap(),
            reader: Reader::new(downstream).unwrap(),
            tickets: Vec::new(),
            is_broken: false,
            buffer: Box::new([0; MAX_PACKET_BYTES]),
        }
    }

    /// Does one step; panics when the hypervisor's side breaks a rule.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Packet {
                kind,
                transaction,
                generation,
                len,
                body,
            } => {
                let header = Header::new(Type(*kind), Generation(*generation), *len).encode();
                self.send(*transaction, &[&header, body]);
            }
            Step::Hello(generation) => {
                let header = Header::new(Type::HELLO, Generation(*generation), 16).encode();
                let (body, _) = Client::<Contiguous<'_>>::hello(5).body();
                self.send(11, &[&header, body.as_bytes()]);
            }
            Step::Field {
                is_up,
                field,
                value,
            } => {
                let field = FIELDS[field % FIELDS.len()];
                self.broken(*is_up).set_control(field, *value);
            }
            Step::Word { is_up, at, word } => self.broken(*is_up).set_word(*at, *word),
            Step::Serve => self.serve(),
            Step::Complete(which) => self.complete(*which),
            Step::Attach => {
                if let Some(generation) = self.generations.fresh() {
                    self.hv.attach(generation);
                    self.writer.restart();
                    self.reader.restart();
                }
            }
            Step::Detach => {
                self.hv.detach(SessionOver::Goodbye);
                let _ = self.hv.flush(&self.doorbell);
            }
            Step::Take => self.take(),
        }
    }

    fn broken(&mut self, is_up: bool) -> Contiguous<'a> {
        self.is_broken = true;
        if is_up {
            self.upstream
        } else {
            self.downstream
        }
    }

    fn send(&mut self, transaction: u64, payload: &[&[u8]]) {
        let _ = self.writer.put(&Outgoing {
            kind: PacketType::IN_BAND,
            flags: PacketFlags::COMPLETION_REQUESTED,
            transaction,
            header: &[],
            payload,
        });
        let _ = self.writer.commit();
    }

    fn serve(&mut self) {
        for _ in 0..16 {
            let before = self.hv.generation();
            let (attachment, generations) = (Some(&ATTACHMENT), &mut self.generations);
            match self.hv.next(&mut self.buffer, attachment, generations) {
                Turn::Run(ticket, request) => {
                    let _ = format!("{request:?}");
                    self.tickets.push(ticket);
                    assert!(self.hv.is_live());
                    assert!(self.tickets.len() <= MAX_OUTSTANDING as usize);
                }
                Turn::Answered(begun) => {
                    assert_eq!(begun.is_some(), self.hv.generation() != before);
                }
                Turn::Cancel(ticket) => assert!(self.tickets.contains(&ticket)),
                Turn::Idle | Turn::Blocked(_) => break,
                Turn::Stopped(stop) => {
                    let again = self.hv.next(&mut self.buffer, attachment, generations);
                    assert!(matches!(again, Turn::Stopped(same) if same == stop));
                    break;
                }
            }
        }
        let _ = self.hv.flush(&self.doorbell);
    }

    fn complete(&mut self, which: usize) {
        if !self.tickets.is_empty() {
            let ticket = self.tickets.swap_remove(which % self.tickets.len());
            let status = Status::default().encode();
            assert!(self.hv.complete(ticket, &status, &[1; 4000]));
            assert!(!self.hv.complete(ticket, &[], &[]));
            let _ = self.hv.flush(&self.doorbell);
        }
    }

    fn take(&mut self) {
        let packet = self.reader.next(&mut self.buffer[..]);
        if self.is_broken {
            return;
        }
        if let Some(packet) = packet.unwrap() {
            assert!(split(packet.payload).is_ok());
            let is_notice = packet.descriptor.transaction == 1 << 63;
            assert_eq!(packet.descriptor.kind == PacketType::IN_BAND, is_notice);
            let _ = self.reader.publish();
        }
    }
}
