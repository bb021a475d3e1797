//! From the registers of a caller to the result word: checks, one copy in, the handler, one copy out.

use core::ops::{DerefMut, Range};

use addr::{Gpa, PAGE_SIZE};
use tlfs::{Control, HvError, Privileges, ResultWord};

use crate::table::{CallSpec, FAST_BYTES, RepSpec, Shape, Table};
use crate::{Body, Registers};

const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// The page cannot be read, or not be written: unmapped, or mapped without that access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAccess;

/// The caller's memory. No call reaches over the end of a page.
pub trait HypercallMemory {
    /// Copies `to.len()` bytes at `from`. On error `to` may be partly written.
    fn read(&mut self, from: Gpa, to: &mut [u8]) -> Result<(), NoAccess>;
    /// Whether the page of `at` can be written now.
    fn check_write(&mut self, at: Gpa) -> Result<(), NoAccess>;
    /// Copies `from` to `to`.
    fn write(&mut self, to: Gpa, from: &[u8]) -> Result<(), NoAccess>;
}

/// How far a handler got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The call is over, successfully.
    Done,
    /// The time for one piece is over. The caller executes the instruction again: a rep call goes on with the
    /// first element not done, a simple one starts anew.
    Yield,
}

/// What the calls do. `K` is the kind that the table gives to each call.
pub trait Handler<K> {
    /// Carries out one call.
    ///
    /// # Errors
    /// The status for the caller. Elements completed before stay done and are reported; the failing one, or
    /// the failing simple call, changed nothing.
    fn handle(&mut self, call: K, body: &mut Body<'_>) -> Result<Progress, HvError>;

    /// Carries out one call whose parameters are in registers, `input` being the first eight bytes, without a body. `None`
    /// leaves it to [`handle`](Self::handle): this is for calls that guests make all the time.
    fn handle_frequent(&mut self, call: K, input: u64) -> Option<Result<(), HvError>> {
        let _ = (call, input);
        None
    }
}

/// Kind of access that a parameter block did not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Of the input.
    Read,
    /// Of the output.
    Write,
}

/// What becomes of the call. [`Mode::finish`](crate::Mode::finish) puts it into the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The result word is to be returned.
    Complete(ResultWord),
    /// The instruction is to be executed again with this control word, after interrupts had their turn.
    Continue(Control),
    /// A parameter block cannot be accessed. Registers and RIP stay: the access is an intercept of the caller's
    /// parent, after which the instruction is executed again; a caller without parent gets #GP.
    NoAccess {
        /// Address of the block.
        gpa: Gpa,
        /// What was tried.
        access: Access,
    },
}

/// Room for the parameters of one call. One per LP; holds nothing between calls.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Scratch {
    input: [u8; PAGE_BYTES],
    output: [u8; PAGE_BYTES],
}

impl Scratch {
    /// Fresh room.
    pub const fn new() -> Self {
        Self {
            input: [0; PAGE_BYTES],
            output: [0; PAGE_BYTES],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Carries out the call in `registers` for a partition with `privileges`.
///
/// Checks come in this order and the first that fails gives the status: code, control word, privilege,
/// alignment, page crossing, access. They change nothing. The input is copied once.
///
/// `scratch` is asked for room only when the parameters are in memory.
#[inline(always)]
pub fn dispatch<K: Copy, S: DerefMut<Target = Scratch>>(
    table: &Table<K>,
    privileges: Privileges,
    registers: &Registers,
    memory: &mut impl HypercallMemory,
    scratch: impl FnOnce() -> S,
    handler: &mut impl Handler<K>,
) -> Outcome {
    let control = registers.control;
    let Some(spec) = table.lookup(control.code()) else {
        return Outcome::Complete(ResultWord::new(Err(HvError::INVALID_HYPERCALL_CODE), 0));
    };
    if let Err(error) = check_control(&spec.shape, control) {
        return Outcome::Complete(ResultWord::new(Err(error), 0));
    }
    if !privileges.contains(spec.privilege) {
        return failed(control, HvError::ACCESS_DENIED);
    }
    if control.is_fast() {
        return match handler.handle_frequent(spec.kind, registers.input) {
            Some(result) => Outcome::Complete(ResultWord::new(result, 0)),
            None => fast(spec, registers, handler),
        };
    }
    slow(spec, registers, memory, &mut scratch(), handler)
}

/// A call refused after its control word was found good. What earlier pieces of it did stays reported.
fn failed(control: Control, error: HvError) -> Outcome {
    Outcome::Complete(ResultWord::new(Err(error), control.rep_start()))
}

/// Whether the control word is one that `spec` allows (TLFS, "Hypercall Inputs").
#[inline(always)]
pub(crate) fn check_control(spec: &Shape, control: Control) -> Result<(), HvError> {
    /// What a simple call without variable header leaves zero: one test for nearly every call.
    const UNUSUAL: u64 =
        Control::RESERVED | Control::VARIABLE_HEADER | Control::REP_COUNT | Control::REP_START;
    let plain = spec.rep.is_none() && control.0 & UNUSUAL == 0;
    let is_valid = plain
        || (!control.has_reserved_bits()
            && (spec.variable_header || control.variable_header_bytes() == 0)
            && match spec.rep {
                // A count of 0 fails here as well.
                Some(_) => control.rep_start() < control.rep_count(),
                None => control.rep_count() == 0 && control.rep_start() == 0,
            });
    if !is_valid || (control.is_fast() && !(spec.fast && control.variable_header_bytes() == 0)) {
        return Err(HvError::INVALID_HYPERCALL_INPUT);
    }
    Ok(())
}

#[inline(never)]
fn fast<K: Copy>(
    spec: &CallSpec<K>,
    registers: &Registers,
    handler: &mut impl Handler<K>,
) -> Outcome {
    let input: [u8; FAST_BYTES] =
        (u128::from(registers.input) | u128::from(registers.output) << 64).to_le_bytes();
    let mut body = Body {
        header: input
            .get(..usize::from(spec.shape.input))
            .unwrap_or_default(),
        variable_header: &[],
        list: &[],
        output: &mut [],
        rep: RepSpec {
            input: 0,
            output: 0,
        },
        count: 0,
        done: 0,
        written: 0,
    };
    conclude(registers.control, handler.handle(spec.kind, &mut body), 0)
}

#[inline(never)]
fn slow<K: Copy>(
    spec: &CallSpec<K>,
    registers: &Registers,
    memory: &mut impl HypercallMemory,
    scratch: &mut Scratch,
    handler: &mut impl Handler<K>,
) -> Outcome {
    let control = registers.control;
    let (count, start) = (control.rep_count(), control.rep_start());
    let shape = &spec.shape;
    let rep = shape.rep.unwrap_or(RepSpec {
        input: 0,
        output: 0,
    });
    let header_bytes = usize::from(shape.input);
    let list_at = header_bytes + control.variable_header_bytes();
    let input_bytes = list_at + usize::from(count) * usize::from(rep.input);
    let (input_gpa, output_gpa) = (registers.input_gpa(), registers.output_gpa());
    let mut output_bytes = usize::from(shape.output) + usize::from(count) * usize::from(rep.output);
    if shape.is_output_open {
        output_bytes = output_bytes.min(PAGE_BYTES - output_gpa.page_offset());
    }
    if !is_placed(input_gpa, input_bytes) || !is_placed(output_gpa, output_bytes) {
        return failed(control, HvError::INVALID_ALIGNMENT);
    }
    // `is_placed` bounds both by a page.
    let (Some(input), Some(output)) = (
        scratch.input.get_mut(..input_bytes),
        scratch.output.get_mut(..output_bytes),
    ) else {
        return failed(control, HvError::INVALID_ALIGNMENT);
    };
    if !input.is_empty() && memory.read(input_gpa, input).is_err() {
        return Outcome::NoAccess {
            gpa: input_gpa,
            access: Access::Read,
        };
    }
    if !output.is_empty() && !shape.is_output_open && memory.check_write(output_gpa).is_err() {
        return Outcome::NoAccess {
            gpa: output_gpa,
            access: Access::Write,
        };
    }
    output.fill(0);

    let (head, list) = input.split_at_checked(list_at).unwrap_or_default();
    let (header, variable_header) = head.split_at_checked(header_bytes).unwrap_or_default();
    let mut body = Body {
        header,
        variable_header,
        list,
        output,
        rep,
        count,
        done: start,
        written: 0,
    };
    let result = handler.handle(spec.kind, &mut body);
    let (done, written) = (body.done, body.written);

    let written = answered(shape, result, start..done, written, output_bytes);
    if let Some(bytes) = scratch.output.get(written.clone())
        && !bytes.is_empty()
    {
        // Stays in the page, as the whole block does. Where access was checked before, the caller can only fail this
        // by unmapping its own page while it calls. It then executes the call once more.
        let to = output_gpa
            .checked_add(written.start as u64)
            .unwrap_or(output_gpa);
        if memory.write(to, bytes).is_err() {
            return Outcome::NoAccess {
                gpa: to,
                access: Access::Write,
            };
        }
    }
    conclude(control, result, done)
}

/// Whether a block may lie there: 8-byte aligned and within one page. An empty block may lie anywhere.
fn is_placed(gpa: Gpa, bytes: usize) -> bool {
    bytes == 0 || (gpa.is_aligned(8) && gpa.page_offset() + bytes <= PAGE_BYTES)
}

/// The bytes of the output that a piece answers: a simple call all of it when it succeeds, of which an open one has
/// `written` and others `output_bytes`; a rep call that of the elements done in the piece.
#[inline(always)]
pub(crate) fn answered(
    shape: &Shape,
    result: Result<Progress, HvError>,
    done: Range<u16>,
    written: usize,
    output_bytes: usize,
) -> Range<usize> {
    match (shape.rep, result) {
        (None, Ok(Progress::Done)) if shape.is_output_open => 0..written,
        (None, Ok(Progress::Done)) => 0..output_bytes,
        (None, _) => 0..0,
        (Some(rep), _) => {
            let bytes = |elements: u16| usize::from(elements) * usize::from(rep.output);
            bytes(done.start)..bytes(done.end)
        }
    }
}

pub(crate) fn conclude(control: Control, result: Result<Progress, HvError>, done: u16) -> Outcome {
    match result {
        // A list whose last element ended the piece is over: there is no element to go on with.
        Ok(Progress::Yield) if done == 0 || done < control.rep_count() => {
            Outcome::Continue(control.with_rep_start(done))
        }
        Ok(_) => Outcome::Complete(ResultWord::new(Ok(()), done)),
        Err(error) => Outcome::Complete(ResultWord::new(Err(error), done)),
    }
}
