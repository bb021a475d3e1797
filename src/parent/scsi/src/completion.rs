//! A command's data, and how it ends.

use crate::scatter::ScatterList;
use crate::sense::Sense;

/// The buffer of a command.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// None.
    None,
    /// From the device.
    In(ScatterList<'a>),
    /// To the device.
    Out(ScatterList<'a>),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// GOOD, with this many bytes moved.
    Good(u32),
    /// CHECK CONDITION.
    Check(Sense),
    /// The buffer is smaller than what the command moves, or goes the other way. Nothing was moved.
    Overrun,
    /// There is no such logical unit.
    NoUnit,
}

/// What stops a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Sense(Sense),
    Overrun,
}

impl From<Sense> for Stop {
    fn from(sense: Sense) -> Self {
        Self::Sense(sense)
    }
}

impl From<Result<u32, Stop>> for Completion {
    fn from(end: Result<u32, Stop>) -> Self {
        match end {
            Ok(bytes) => Self::Good(bytes),
            Err(Stop::Sense(sense)) => Self::Check(sense),
            Err(Stop::Overrun) => Self::Overrun,
        }
    }
}

impl<'a> Data<'a> {
    /// Hands `answer` to the child: as much as its allocation length and its buffer take. SPC-4: "truncated" is no
    /// error.
    pub(crate) fn answer(&self, answer: &[u8], allocation_len: usize) -> Result<u32, Stop> {
        let bytes = answer
            .get(..answer.len().min(allocation_len))
            .unwrap_or(answer);
        let moved = match self {
            Self::In(list) => list.copy_in(bytes),
            Self::None | Self::Out(_) => 0,
        };
        // No answer is longer than a few KiB.
        Ok(moved as u32)
    }

    /// The first `bytes` of the buffer to fill.
    pub(crate) fn to_fill(&self, bytes: usize) -> Result<ScatterList<'a>, Stop> {
        match self {
            Self::In(list) => list.part(0, bytes).ok_or(Stop::Overrun),
            _ if bytes == 0 => Ok(ScatterList::default()),
            _ => Err(Stop::Overrun),
        }
    }

    /// The first `bytes` of what the child sends.
    pub(crate) fn to_take(&self, bytes: usize) -> Result<ScatterList<'a>, Stop> {
        match self {
            Self::Out(list) => list.part(0, bytes).ok_or(Stop::Overrun),
            _ if bytes == 0 => Ok(ScatterList::default()),
            _ => Err(Stop::Overrun),
        }
    }

    /// A private copy of the first `bytes` of what the child sends.
    pub(crate) fn copy_taken(&self, bytes: usize) -> Result<Vec<u8>, Stop> {
        let list = self.to_take(bytes)?;
        let mut copy = vec![0; bytes];
        list.copy_out(&mut copy);
        Ok(copy)
    }
}
