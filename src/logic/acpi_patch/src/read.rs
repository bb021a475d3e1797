//! Little-endian numbers out of a slice, without a panic.

/// The `N` bytes at `at`.
pub(crate) fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

/// The byte at `at`.
pub(crate) fn u8_at(from: &[u8], at: usize) -> Option<u8> {
    from.get(at).copied()
}

/// The two-byte number at `at`.
pub(crate) fn u16_at(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_le_bytes)
}

/// The four-byte number at `at`.
pub(crate) fn u32_at(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_le_bytes)
}

/// The eight-byte number at `at`.
pub(crate) fn u64_at(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_le_bytes)
}
