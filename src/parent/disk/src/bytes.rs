//! Fields of tables in a file.

/// A number of `N` bytes at `at`; zero where the bytes end before it.
pub(crate) fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Two bytes, little-endian.
pub(crate) fn le16(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

/// Four bytes, little-endian.
pub(crate) fn le32(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

/// Eight bytes, little-endian.
pub(crate) fn le64(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// Four bytes, big-endian.
pub(crate) fn be32(from: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes(from, at))
}

/// Eight bytes, big-endian.
pub(crate) fn be64(from: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes(from, at))
}

/// Copies `value` to `at`, if there is room for all of it.
pub(crate) fn put(into: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at
        .checked_add(value.len())
        .and_then(|end| into.get_mut(at..end))
    {
        place.copy_from_slice(value);
    }
}

/// CRC-32C (Castagnoli) of `bytes`, with those at `skip..skip + 4` taken for zeroes: where the sum itself lies.
pub(crate) fn crc32c(bytes: &[u8], skip: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    value >> 1 ^ POLYNOMIAL
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    let mut sum = !0u32;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if at.wrapping_sub(skip) < 4 { 0 } else { *byte };
        let [low, ..] = sum.to_le_bytes();
        sum = sum >> 8 ^ TABLE[usize::from(low ^ byte)];
    }
    !sum
}

/// Sixteen random bytes for a GUID of version 4. It opens no file: where images are served there may be none.
pub(crate) fn random_guid() -> std::io::Result<[u8; 16]> {
    let mut guid = [0; 16];
    // So few bytes come whole.
    let filled = rustix::rand::getrandom(&mut guid, rustix::rand::GetRandomFlags::empty())?;
    if filled < guid.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    guid[7] = guid[7] & 0x0F | 0x40;
    guid[8] = guid[8] & 0x3F | 0x80;
    Ok(guid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_castagnolis() {
        // RFC 3720, "B.4 CRC Examples", and the usual check value.
        assert_eq!(crc32c(&[0; 32], 99), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789", 99), 0xE306_9283);
        let mut bytes = *b"1234xxxx9";
        let sum = crc32c(&bytes, 4);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(crc32c(&bytes, 4), sum);
    }
}
