//! Command descriptor blocks.

use crate::sense::Sense;

/// Longest block that is taken.
pub const MAX_CDB_LEN: usize = 16;

/// A command descriptor block with all the bytes that its operation code asks for; zeroes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb([u8; MAX_CDB_LEN]);

impl Cdb {
    /// Copies `bytes`, of which no more than [`MAX_CDB_LEN`] count.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB where the block is shorter than its group says; INVALID COMMAND OPERATION CODE for groups
    /// of other lengths.
    pub fn new(bytes: &[u8]) -> Result<Self, Sense> {
        let mut cdb = [0; MAX_CDB_LEN];
        for (place, byte) in cdb.iter_mut().zip(bytes) {
            *place = *byte;
        }
        // The upper three bits are the group (SPC-4, "The fixed length CDB formats").
        let wanted = match cdb[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            _ => return Err(Sense::INVALID_OPERATION_CODE),
        };
        if bytes.len() < wanted {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        Ok(Self(cdb))
    }

    /// Operation code.
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// Service action, of the operation codes that have one.
    pub fn service_action(&self) -> u8 {
        self.0[1] & 0x1F
    }

    /// The byte at `AT`.
    pub fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < MAX_CDB_LEN) };
        self.0[AT]
    }

    /// Whether bit `bit` of the byte at `AT` is set.
    pub fn bit<const AT: usize>(&self, bit: u8) -> bool {
        self.byte::<AT>() >> bit & 1 != 0
    }

    /// Two bytes at `AT`, big-endian.
    pub fn be16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= MAX_CDB_LEN) };
        u16::from_be_bytes([self.0[AT], self.0[AT + 1]])
    }

    /// Four bytes at `AT`, big-endian.
    pub fn be32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= MAX_CDB_LEN) };
        u32::from_be_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]])
    }

    /// Eight bytes at `AT`, big-endian.
    pub fn be64<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 8 <= MAX_CDB_LEN) };
        u64::from(self.be32::<AT>()) << 32 | u64::from(self.low_half::<AT>())
    }

    fn low_half<const AT: usize>(&self) -> u32 {
        let low = |n: usize| self.0.get(AT + 4 + n).copied().unwrap_or(0);
        u32::from_be_bytes([low(0), low(1), low(2), low(3)])
    }
}

/// Operation codes (SPC-4, SBC-3, MMC-6, each "Commands").
pub(crate) mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0A;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1A;
    pub const START_STOP_UNIT: u8 = 0x1B;
    pub const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1E;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2A;
    pub const SEEK_10: u8 = 0x2B;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2E;
    pub const VERIFY_10: u8 = 0x2F;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4A;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SENSE_10: u8 = 0x5A;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8A;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8E;
    pub const VERIFY_16: u8 = 0x8F;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9E;
    pub const REPORT_LUNS: u8 = 0xA0;
    pub const READ_12: u8 = 0xA8;
    pub const WRITE_12: u8 = 0xAA;
    pub const MECHANISM_STATUS: u8 = 0xBD;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_blocks_are_refused_and_long_ones_cut() {
        assert!(Cdb::new(&[0x28; 9]).is_err());
        assert!(Cdb::new(&[]).is_err());
        assert_eq!(Cdb::new(&[0x60; 16]), Err(Sense::INVALID_OPERATION_CODE));
        let bytes: Vec<u8> = (0x88..0xA0).collect();
        let cdb = Cdb::new(&bytes).unwrap();
        assert_eq!(cdb.be64::<2>(), 0x8A8B_8C8D_8E8F_9091);
        assert_eq!(cdb.be32::<10>(), 0x9293_9495);
        assert_eq!(cdb.be16::<14>(), 0x9697);
    }
}
