//! The log ring, copied while the hypervisor may write to it.

/// The whole lines of the log in a copy of the ring. `before` and `after` are the numbers of bytes ever written, read
/// before and after the copy: what was written in between lies where the oldest bytes were.
///
/// A line that the ring lost the start of is left out, and so is one that is being written.
pub fn lines(ring: &[u8], before: u64, after: u64) -> Vec<u8> {
    let len = ring.len() as u64;
    let oldest = after.max(before).saturating_sub(len);
    if len == 0 || oldest >= before {
        return Vec::new();
    }
    let mut bytes: Vec<u8> = (oldest..before)
        .filter_map(|position| ring.get((position % len) as usize).copied())
        .collect();
    let is_end = |byte: &u8| *byte == b'\n';
    bytes.truncate(bytes.iter().rposition(is_end).map_or(0, |end| end + 1));
    if oldest > 0 {
        let first = bytes
            .iter()
            .position(is_end)
            .map_or(bytes.len(), |end| end + 1);
        bytes.drain(..first);
    }
    // The count goes up before the byte is there, on each LP for itself: a byte may still be what it was at first.
    bytes.retain(|byte| *byte != 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ring of `len` bytes after `text` was written to it.
    fn ring(len: usize, text: &[u8]) -> Vec<u8> {
        let mut ring = vec![0; len];
        for (position, byte) in text.iter().enumerate() {
            ring[position % len] = *byte;
        }
        ring
    }

    #[test]
    fn a_ring_that_has_not_come_round_gives_all() {
        let text = b"one\ntwo\n";
        assert_eq!(lines(&ring(32, text), 8, 8), text);
        assert_eq!(lines(&ring(8, text), 8, 8), text);
        assert_eq!(lines(&ring(8, b""), 0, 0), b"");
    }

    #[test]
    fn the_cut_line_at_the_start_is_left_out() {
        assert_eq!(lines(&ring(8, b"first\nsecond\nx\n"), 15, 15), b"x\n");
    }

    #[test]
    fn an_unfinished_line_is_left_out() {
        assert_eq!(lines(&ring(32, b"one\ntw"), 6, 6), b"one\n");
        assert_eq!(lines(&ring(32, b"tw"), 2, 2), b"");
    }

    #[test]
    fn what_was_overwritten_during_the_copy_is_left_out() {
        let (old, new) = (b"aaa\nbbb\nccc\n", b"aaa\nbbb\nccc\nZZZZZ\n");
        assert_eq!(
            lines(&ring(12, new), old.len() as u64, new.len() as u64),
            b"ccc\n"
        );
        // Written round once more: nothing of what was counted is left.
        assert_eq!(lines(&ring(12, new), 12, 40), b"");
    }

    #[test]
    fn a_byte_that_was_counted_but_not_written_is_left_out() {
        let mut torn = ring(32, b"one\ntwo\n");
        torn[5] = 0;
        assert_eq!(lines(&torn, 8, 8), b"one\nto\n");
    }

    #[test]
    fn counts_that_cannot_be_give_nothing_strange() {
        assert_eq!(lines(&[], 5, 5), b"");
        assert!(
            lines(
                &ring(
                    4, b"a
b
"
                ),
                u64::MAX,
                0
            )
            .len()
                <= 4
        );
    }

    proptest! {
        #[test]
        fn only_lines_that_were_written_come_out(
            len in 1usize..80,
            text in proptest::collection::vec("[a-z]{0,9}", 0..30),
            late in 0usize..40,
        ) {
            let whole: String = text.iter().map(|line| format!("{line}\n")).collect();
            let before = whole.len().saturating_sub(late);
            let found = lines(&ring(len, whole.as_bytes()), before as u64, whole.len() as u64);
            let found = String::from_utf8(found).unwrap();
            // Whole lines, in their order, up to the last one that was complete at the first count.
            let complete = &whole[..whole[..before].rfind('\n').map_or(0, |end| end + 1)];
            prop_assert!(complete.ends_with(&found));
            prop_assert!(found.is_empty() || found.len() == complete.len()
                || complete[..complete.len() - found.len()].ends_with('\n'));
        }
    }
}
