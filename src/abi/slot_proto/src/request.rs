//! Requests from user space.

use addr::{Gpa, PartitionId};
use bitflags::bitflags;
use tlfs::wire::{Field, Writer, Zero, blocks};
use tlfs::{Control, HvError, Reader};
use vmbus_proto::{GpadlHandle, Offer, Relid};

use crate::{Fixed, MAX_CALL_BYTES, MAX_STATE_BYTES, Type};

bitflags! {
    /// Flags of [`Attach`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AttachFlags: u32 {
        /// The VPs do not go on by this.
        const STAYS_SUSPENDED = 1 << 0;
    }
}

impl Field for AttachFlags {
    const BYTES: usize = 4;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        Self::from_bits(r.u32()?).ok_or(HvError::INVALID_PARAMETER)
    }
    fn write(self, w: &mut Writer<'_>) {
        self.bits().write(w);
    }
}

blocks! {
    /// HELLO.
    Hello[16] {
        magic: u32, major: u16, minor: u16,
        /// Requests at a time that the sender would like; from 1 on.
        max_outstanding: u32,
        reserved: Zero<4>,
    }

    /// CANCEL: the CALL with this transaction id may stop. It has its completion all the same.
    Cancel[8] {
        transaction: u64,
    }

    /// SLOT_ADD: slot `number` is offered to the parent.
    SlotAdd[8] {
        number: u32, reserved: Zero<4>,
    }

    /// ATTACH: the slot becomes the partition's. The old worker is gone.
    Attach[32] {
        slot: u32, flags: AttachFlags, partition: PartitionId,
        /// Contiguous RAM of the parent: [`event::AREA_PAGES`](crate::event::AREA_PAGES) pages.
        event_area: Gpa,
        /// One page of the parent's RAM.
        signal_page: Gpa,
    }

    /// DETACH: the session ends; what the child's VMBus has remains for the next one.
    Detach[8] {
        slot: u32, generation: crate::Generation,
    }

    /// LIST, from partition number `start` of the list on.
    List[8] {
        start: u32, reserved: Zero<4>,
    }

    /// TAG: a number that the hypervisor keeps for the daemon.
    Tag[16] {
        partition: PartitionId, tag: u64,
    }

    /// RESCIND and CLOSE_DONE: which channel.
    RelidOnly[8] {
        relid: Relid, reserved: Zero<4>,
    }

    /// OPEN_RESULT.
    OpenResult[8] {
        relid: Relid,
        /// For the child: 0, the channel is open.
        status: u32,
    }

    /// GPADL_PAGES, from page `first` on.
    GpadlPagesFrom[16] {
        relid: Relid, handle: GpadlHandle, first: u32, reserved: Zero<4>,
    }

    /// GPADL_DONE: which GPADL.
    GpadlName[8] {
        relid: Relid, handle: GpadlHandle,
    }

    /// RESET_DONE.
    NoArguments[8] {
        reserved: Zero<8>,
    }

    /// VMBUS_SAVE, from byte `offset` of the state on.
    SaveFrom[8] {
        offset: u32, reserved: Zero<4>,
    }

    /// Head of VMBUS_RESTORE; the bytes follow.
    RestorePart[8] {
        /// Size of the whole state.
        bytes: u32,
        /// Where this part belongs.
        offset: u32,
    }
}

/// CALL: a hypercall whose input is not in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The control word.
    pub control: Control,
    /// The input with its elements, up to [`MAX_CALL_BYTES`].
    pub input: &'a [u8],
}

/// A request, checked as far as it can be without knowing any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`Type` says what they are")]
pub enum Request<'a> {
    Hello(Hello),
    Call(Call<'a>),
    Cancel(Cancel),
    SlotAdd(SlotAdd),
    Attach(Attach),
    Detach(Detach),
    List(List),
    Tag(Tag),
    Offer(Offer),
    Rescind(RelidOnly),
    OpenResult(OpenResult),
    CloseDone(RelidOnly),
    GpadlPages(GpadlPagesFrom),
    GpadlDone(GpadlName),
    ResetDone,
    VmbusSave(SaveFrom),
    VmbusRestore(RestorePart, &'a [u8]),
}

impl<'a> Request<'a> {
    /// Reads the body of a request of type `kind`.
    ///
    /// # Errors
    /// - [`HvError::INVALID_HYPERCALL_CODE`]: nobody knows this type.
    /// - [`HvError::INVALID_PARAMETER`]: a length, a reserved field or a value is not as it must be.
    /// - [`HvError::INVALID_HYPERCALL_INPUT`]: the control word of a CALL has reserved bits or the fast bit.
    pub fn decode(kind: Type, body: &'a [u8]) -> Result<Self, HvError> {
        let mut r = Reader::new(body);
        let request = match kind {
            Type::HELLO => Self::Hello(Field::read(&mut r)?),
            Type::CALL => {
                let control = Control(r.u64()?);
                if control.has_reserved_bits() || control.is_fast() {
                    return Err(HvError::INVALID_HYPERCALL_INPUT);
                }
                let input = rest(&mut r, MAX_CALL_BYTES)?;
                Self::Call(Call { control, input })
            }
            Type::CANCEL => Self::Cancel(Field::read(&mut r)?),
            Type::SLOT_ADD => Self::SlotAdd(Field::read(&mut r)?),
            Type::ATTACH => Self::Attach(Field::read(&mut r)?),
            Type::DETACH => Self::Detach(Field::read(&mut r)?),
            Type::LIST => Self::List(Field::read(&mut r)?),
            Type::TAG => Self::Tag(Field::read(&mut r)?),
            Type::OFFER => Self::Offer(Field::read(&mut r)?),
            Type::RESCIND => Self::Rescind(Field::read(&mut r)?),
            Type::OPEN_RESULT => Self::OpenResult(Field::read(&mut r)?),
            Type::CLOSE_DONE => Self::CloseDone(Field::read(&mut r)?),
            Type::GPADL_PAGES => Self::GpadlPages(Field::read(&mut r)?),
            Type::GPADL_DONE => Self::GpadlDone(Field::read(&mut r)?),
            Type::RESET_DONE => {
                NoArguments::read(&mut r)?;
                Self::ResetDone
            }
            Type::VMBUS_SAVE => Self::VmbusSave(Field::read(&mut r)?),
            Type::VMBUS_RESTORE => {
                let part = Field::read(&mut r)?;
                Self::VmbusRestore(part, rest(&mut r, MAX_STATE_BYTES)?)
            }
            _ => return Err(HvError::INVALID_HYPERCALL_CODE),
        };
        if !r.rest().is_empty() {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok(request)
    }

    /// The type.
    pub const fn kind(&self) -> Type {
        match self {
            Self::Hello(_) => Type::HELLO,
            Self::Call(_) => Type::CALL,
            Self::Cancel(_) => Type::CANCEL,
            Self::SlotAdd(_) => Type::SLOT_ADD,
            Self::Attach(_) => Type::ATTACH,
            Self::Detach(_) => Type::DETACH,
            Self::List(_) => Type::LIST,
            Self::Tag(_) => Type::TAG,
            Self::Offer(_) => Type::OFFER,
            Self::Rescind(_) => Type::RESCIND,
            Self::OpenResult(_) => Type::OPEN_RESULT,
            Self::CloseDone(_) => Type::CLOSE_DONE,
            Self::GpadlPages(_) => Type::GPADL_PAGES,
            Self::GpadlDone(_) => Type::GPADL_DONE,
            Self::ResetDone => Type::RESET_DONE,
            Self::VmbusSave(_) => Type::VMBUS_SAVE,
            Self::VmbusRestore(..) => Type::VMBUS_RESTORE,
        }
    }

    /// The body: its fixed part, and the bytes that follow it.
    pub fn body(&self) -> (Fixed, &'a [u8]) {
        let fixed = match self {
            Self::Hello(body) => Fixed::new(body.encode()),
            Self::Call(call) => return (Fixed::new(call.control.0.to_le_bytes()), call.input),
            Self::Cancel(body) => Fixed::new(body.encode()),
            Self::SlotAdd(body) => Fixed::new(body.encode()),
            Self::Attach(body) => Fixed::new(body.encode()),
            Self::Detach(body) => Fixed::new(body.encode()),
            Self::List(body) => Fixed::new(body.encode()),
            Self::Tag(body) => Fixed::new(body.encode()),
            Self::Offer(body) => Fixed::new(body.encode()),
            Self::Rescind(body) | Self::CloseDone(body) => Fixed::new(body.encode()),
            Self::OpenResult(body) => Fixed::new(body.encode()),
            Self::GpadlPages(body) => Fixed::new(body.encode()),
            Self::GpadlDone(body) => Fixed::new(body.encode()),
            Self::ResetDone => Fixed::new(NoArguments::default().encode()),
            Self::VmbusSave(body) => Fixed::new(body.encode()),
            Self::VmbusRestore(part, bytes) => return (Fixed::new(part.encode()), bytes),
        };
        (fixed, &[])
    }
}

fn rest<'a>(r: &mut Reader<'a>, max: usize) -> Result<&'a [u8], HvError> {
    let len = r.rest().len();
    if len > max {
        return Err(HvError::INVALID_PARAMETER);
    }
    r.take(len)
}
