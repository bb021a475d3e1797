//! The checksum beside the hypervisor image: damage inside its code shows in no header.

use sha2::{Digest, Sha256};

/// What a checksum file says against a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestError {
    /// The checksum file does not begin with 64 hexadecimal digits.
    Malformed,
    /// The file's SHA-256 is another.
    Mismatch,
}

/// Compares `file` with the SHA-256 that `sidecar` begins with, in the form that `sha256sum` writes.
///
/// # Errors
/// [`DigestError`]: the checksum file makes no sense, or the file is not the one it was made for.
pub fn check_digest(file: &[u8], sidecar: &[u8]) -> Result<(), DigestError> {
    let (digits, rest) = sidecar
        .split_first_chunk::<64>()
        .ok_or(DigestError::Malformed)?;
    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
        return Err(DigestError::Malformed);
    }
    let mut expected = [0u8; 32];
    for (byte, pair) in expected.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (high, low) else {
            return Err(DigestError::Malformed);
        };
        *byte = (high as u8) << 4 | low as u8;
    }
    if Sha256::digest(file)[..] == expected {
        Ok(())
    } else {
        Err(DigestError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &[u8] =
        b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n";

    #[test]
    fn the_right_file_passes_and_one_changed_bit_does_not() {
        assert_eq!(check_digest(b"abc", OF_ABC), Ok(()));
        assert_eq!(check_digest(b"abc", &OF_ABC[..64]), Ok(()));
        assert_eq!(check_digest(b"abb", OF_ABC), Err(DigestError::Mismatch));
    }

    #[test]
    fn a_checksum_file_that_is_none_is_told_apart() {
        assert_eq!(check_digest(b"abc", b""), Err(DigestError::Malformed));
        assert_eq!(
            check_digest(b"abc", &OF_ABC[..63]),
            Err(DigestError::Malformed)
        );
        assert_eq!(
            check_digest(b"abc", &[b'g'; 64]),
            Err(DigestError::Malformed)
        );
        assert_eq!(
            check_digest(b"abc", &[b'0'; 65]),
            Err(DigestError::Malformed)
        );
    }
}
