//! Message queues: one first-in-first-out line per SINT, all in one store of fixed size.

use tlfs::Message;
use tlfs::message::SINT_COUNT;

/// Room for one waiting message.
#[derive(Clone, Copy, Debug)]
pub struct QueueEntry {
    message: Message,
    /// Next entry of its line, or of the free ones.
    next: Link,
}

impl QueueEntry {
    /// Room that holds nothing.
    pub const EMPTY: Self = Self {
        message: Message::EMPTY,
        next: None,
    };
}

/// All room is taken: the message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

type Link = Option<u16>;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    first: Link,
    last: Link,
}

/// The lines of one VP.
#[derive(Debug)]
pub(crate) struct Queues<'m> {
    entries: &'m mut [QueueEntry],
    lines: [Line; SINT_COUNT],
    free: Link,
    /// Messages in all lines.
    waiting: u16,
}

impl<'m> Queues<'m> {
    /// Empty lines in `entries`. Only the first 65,535 entries are used.
    pub(crate) fn new(entries: &'m mut [QueueEntry]) -> Self {
        let mut queues = Self {
            entries,
            lines: [Line::default(); SINT_COUNT],
            free: None,
            waiting: 0,
        };
        queues.clear();
        queues
    }

    /// Throws every message away.
    pub(crate) fn clear(&mut self) {
        self.lines = [Line::default(); SINT_COUNT];
        self.free = None;
        self.waiting = 0;
        for (index, entry) in (0..u16::MAX).zip(self.entries.iter_mut()) {
            entry.next = self.free;
            self.free = Some(index);
        }
    }

    /// Appends `message` to the line of `sint`.
    pub(crate) fn push(&mut self, sint: usize, message: &Message) -> Result<(), QueueFull> {
        let index = self.free.ok_or(QueueFull)?;
        let line = self.lines.get_mut(sint).ok_or(QueueFull)?;
        let entry = self.entries.get_mut(usize::from(index)).ok_or(QueueFull)?;
        self.free = entry.next;
        *entry = QueueEntry {
            message: *message,
            next: None,
        };
        let last = line.last.replace(index);
        match last.and_then(|last| self.entries.get_mut(usize::from(last))) {
            Some(last) => last.next = Some(index),
            None => line.first = Some(index),
        }
        self.waiting += 1; // at most one per entry, and entries have 16-bit numbers
        Ok(())
    }

    /// The message at the head of the line of `sint`, and whether others wait behind it.
    pub(crate) fn first(&self, sint: usize) -> Option<(&Message, bool)> {
        let entry = self
            .entries
            .get(usize::from(self.lines.get(sint)?.first?))?;
        Some((&entry.message, entry.next.is_some()))
    }

    /// Takes the head off the line of `sint`.
    pub(crate) fn pop(&mut self, sint: usize) {
        let Some(line) = self.lines.get_mut(sint) else {
            return;
        };
        let Some(index) = line.first else { return };
        let Some(entry) = self.entries.get_mut(usize::from(index)) else {
            return;
        };
        line.first = entry.next;
        if line.first.is_none() {
            line.last = None;
        }
        entry.next = self.free;
        self.free = Some(index);
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Whether no message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;
    use tlfs::MessageType;

    fn message(id: u64) -> Message {
        Message::new(MessageType(1), id, &[]).unwrap()
    }

    proptest! {
        #[test]
        fn lines_behave_as_queues_in_one_store(
            room in 0usize..12,
            steps in proptest::collection::vec((0usize..17, any::<bool>()), 0..200)
        ) {
            let mut entries = std::vec![QueueEntry::EMPTY; room];
            let mut queues = Queues::new(&mut entries);
            let mut model: Vec<VecDeque<u64>> = (0..17).map(|_| VecDeque::new()).collect();
            for (id, (sint, is_push)) in (0u64..).zip(steps) {
                let used: usize = model.iter().map(VecDeque::len).sum();
                if is_push {
                    let fits = used < room && sint < 16;
                    prop_assert_eq!(queues.push(sint, &message(id)).is_ok(), fits);
                    if fits {
                        model[sint].push_back(id);
                    }
                } else {
                    queues.pop(sint);
                    model[sint].pop_front();
                }
                for (sint, line) in model.iter().enumerate() {
                    let first = queues.first(sint).map(|(m, more)| (m.origin(), more));
                    prop_assert_eq!(first, line.front().map(|id| (*id, line.len() > 1)));
                }
                prop_assert_eq!(queues.is_empty(), model.iter().all(VecDeque::is_empty));
            }
        }
    }
}
