//! Fields of byte images, without a panic: outside of the image reads are zero and writes are lost.

pub(crate) fn read<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(from) = at.checked_add(N).and_then(|end| image.get(at..end)) {
        bytes.copy_from_slice(from);
    }
    bytes
}

pub(crate) fn read_u32(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(read(image, at))
}

pub(crate) fn read_u64(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(read(image, at))
}

pub(crate) fn write(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = at
        .checked_add(bytes.len())
        .and_then(|end| image.get_mut(at..end))
    {
        to.copy_from_slice(bytes);
    }
}

pub(crate) fn fill_zero(image: &mut [u8], range: core::ops::Range<usize>) {
    if let Some(bytes) = image.get_mut(range) {
        bytes.fill(0);
    }
}

/// Copies `bytes` bytes at `from` of one image to `to` of the other.
pub(crate) fn copy(source: &[u8], from: usize, image: &mut [u8], to: usize, bytes: usize) {
    if let Some(bytes) = from
        .checked_add(bytes)
        .and_then(|end| source.get(from..end))
    {
        write(image, to, bytes);
    }
}
