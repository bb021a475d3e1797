//! What a handler sees of a call: its input, and room for its output.

use tlfs::HvError;

use crate::table::RepSpec;

/// The copied input of a call and its output, for the handler.
///
/// A simple call is its [`header`](Self::header) and what it [writes](Self::write_output). A rep call is also a
/// list of elements, taken one at a time:
///
/// ```
/// # use hypercall::{Body, Progress};
/// # use tlfs::HvError;
/// # fn work(_: &[u8]) -> Result<(), HvError> { Ok(()) }
/// # fn is_time_up() -> bool { true }
/// fn handle(body: &mut Body<'_>) -> Result<Progress, HvError> {
///     while let Some(element) = body.element() {
///         work(element.input)?; // an error reports the elements done before
///         body.complete_element();
///         if is_time_up() {
///             return Ok(Progress::Yield);
///         }
///     }
///     Ok(Progress::Done)
/// }
/// ```
#[derive(Debug)]
pub struct Body<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) variable_header: &'a [u8],
    /// The whole input list, from element 0.
    pub(crate) list: &'a [u8],
    /// Output of a simple call, or the whole output list from element 0.
    pub(crate) output: &'a mut [u8],
    pub(crate) rep: RepSpec,
    /// Elements in the call, 0 for a simple one.
    pub(crate) count: u16,
    /// Elements done, counted from element 0.
    pub(crate) done: u16,
    /// Bytes that the handler wrote to the output of a simple call.
    pub(crate) written: usize,
}

/// One element of a rep call.
#[derive(Debug)]
pub struct Element<'a> {
    /// Its place in the list, from 0.
    pub index: u16,
    /// Its input, as long as the declaration says.
    pub input: &'a [u8],
    /// Its output, zeros before the handler writes, as long as the declaration says.
    pub output: &'a mut [u8],
}

impl Element<'_> {
    /// Makes `bytes`, as long as the declaration says, the output of the element.
    pub fn answer(&mut self, bytes: &[u8]) {
        for (to, from) in self.output.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

impl<'a> Body<'a> {
    /// The fixed part of the input, as long as the declaration says.
    pub const fn header(&self) -> &'a [u8] {
        self.header
    }

    /// The variable header, a multiple of 8 bytes and empty for most calls.
    pub const fn variable_header(&self) -> &'a [u8] {
        self.variable_header
    }

    /// Makes `bytes` the output of a simple call. Where it is longer the rest is zeros, and without this all of it.
    ///
    /// # Errors
    /// [`HvError::INVALID_ALIGNMENT`] when the caller's block has no room for them; nothing is written. Only a
    /// call whose output has no fixed length can fail.
    pub fn write_output(&mut self, bytes: &[u8]) -> Result<(), HvError> {
        let room = self.output.get_mut(..bytes.len());
        room.ok_or(HvError::INVALID_ALIGNMENT)?
            .copy_from_slice(bytes);
        self.written = bytes.len();
        Ok(())
    }

    /// The first element that is not done, or `None` when all are.
    pub fn element(&mut self) -> Option<Element<'_>> {
        if self.done >= self.count {
            return None;
        }
        let (input, output) = (usize::from(self.rep.input), usize::from(self.rep.output));
        let index = usize::from(self.done);
        Some(Element {
            index: self.done,
            input: self.list.get(index * input..(index + 1) * input)?,
            output: self.output.get_mut(index * output..(index + 1) * output)?,
        })
    }

    /// Counts the element that [`Body::element`] gave as done. Nothing happens when all are.
    pub fn complete_element(&mut self) {
        self.complete(1);
    }

    /// Elements done, counted from element 0 of the call.
    pub const fn done(&self) -> u16 {
        self.done
    }

    /// Elements not done.
    pub const fn remaining(&self) -> u16 {
        self.count - self.done
    }

    /// The input of the elements not done, for a handler that takes several at once.
    pub fn remaining_input(&self) -> &'a [u8] {
        let from = usize::from(self.done) * usize::from(self.rep.input);
        self.list.get(from..).unwrap_or_default()
    }

    /// Counts `elements` more as done, at most those that remain.
    pub fn complete(&mut self, elements: u16) {
        self.done += elements.min(self.remaining());
    }
}
