//! GUIDs.

use tlfs::wire::{Field, Writer};
use tlfs::{HvError, Reader};

/// A GUID in the order of bytes that it has on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID that is written `text`, in hexadecimal digits with dashes: 8, 4, 4, 4 and 12. `None` for anything else.
    pub const fn parse(text: &str) -> Option<Self> {
        /// Where in the text each byte stands: the first three groups are numbers, and so the other way round.
        const PLACES: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let mut i = 0;
        while i < bytes.len() {
            let (Some(high), Some(low)) = (digit(text[PLACES[i]]), digit(text[PLACES[i] + 1]))
            else {
                return None;
            };
            bytes[i] = high << 4 | low;
            i += 1;
        }
        if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
            return None;
        }
        Some(Self(bytes))
    }

    /// The GUID of a family with `base` whose last four bytes are `number` higher, modulo 2^32.
    pub const fn numbered(base: Self, number: u32) -> Self {
        let b = base.0;
        let last = u32::from_be_bytes([b[12], b[13], b[14], b[15]]).wrapping_add(number);
        let l = last.to_be_bytes();
        Self([
            b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], l[0], l[1],
            l[2], l[3],
        ])
    }
}

const fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        b'A'..=b'F' => Some(letter - b'A' + 10),
        _ => None,
    }
}

impl Field for Guid {
    const BYTES: usize = 16;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        r.array().map(Self)
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&self.0);
    }
}

impl core::fmt::Display for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-")?;
        for (i, byte) in rest.iter().enumerate() {
            let dash = if i == 2 { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn text_and_wire_differ_in_the_first_three_groups() {
        let guid = Guid::parse("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f").unwrap();
        assert_eq!(
            guid.0[..8],
            [0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d]
        );
        assert_eq!(
            guid.0[8..],
            [0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f]
        );
        assert_eq!(guid.to_string(), "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
    }

    #[test]
    fn only_the_one_form_is_read() {
        for text in [
            "",
            "ba6163d9-04a1-4d29-b605-72e2ffb1dc7",
            "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f0",
            "ba6163d9004a1-4d29-b605-72e2ffb1dc7f",
            "ga6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        ] {
            assert_eq!(Guid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_family_counts_in_its_last_digits() {
        let base = Guid::parse("00000000-0000-0000-0000-0000000000ff").unwrap();
        assert_eq!(
            Guid::numbered(base, 2).to_string(),
            "00000000-0000-0000-0000-000000000101"
        );
    }
}
