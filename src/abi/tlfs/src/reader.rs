//! Little-endian fields out of bytes that somebody else wrote.

use crate::HvError;

/// Reads fields in order from the copy of a parameter block.
///
/// Every method answers [`HvError::INVALID_PARAMETER`] when too few bytes are left, and then consumes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where there are fewer, and nothing is passed over; so it is for all that follow.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], HvError> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(HvError::INVALID_PARAMETER)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, HvError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next 2 bytes.
    pub fn u16(&mut self) -> Result<u16, HvError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next 4 bytes.
    pub fn u32(&mut self) -> Result<u32, HvError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next 8 bytes.
    pub fn u64(&mut self) -> Result<u64, HvError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], HvError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(HvError::INVALID_PARAMETER)?;
        self.0 = rest;
        Ok(head)
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), HvError> {
        self.take(len).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_in_order() {
        let mut r = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(r.u8(), Ok(0x01));
        assert_eq!(r.u16(), Ok(0x0302));
        assert_eq!(r.u32(), Ok(0x0706_0504));
        assert_eq!(r.skip(1), Ok(()));
        assert_eq!(r.u64(), Ok(0x100F_0E0D_0C0B_0A09));
        assert!(r.rest().is_empty());
    }

    #[test]
    fn a_short_read_fails_and_consumes_nothing() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.u32(), Err(HvError::INVALID_PARAMETER));
        assert_eq!(r.take(4), Err(HvError::INVALID_PARAMETER));
        assert_eq!(r.take(3), Ok(&[1u8, 2, 3][..]));
    }
}
