//! Sense data: why a command did not do what it was asked.

use std::io;

/// Bytes of sense data in fixed format.
pub const SENSE_LEN: usize = 18;

/// Sense key with additional code and qualifier (SPC-4, "Sense data").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Sense {
    const NOT_READY: u8 = 2;
    const MEDIUM_ERROR: u8 = 3;
    const HARDWARE_ERROR: u8 = 4;
    const ILLEGAL_REQUEST: u8 = 5;
    const UNIT_ATTENTION: u8 = 6;
    const DATA_PROTECT: u8 = 7;

    const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// Nothing to say.
    pub const NO_SENSE: Self = Self::new(0, 0, 0);
    /// The unit was stopped: START STOP UNIT starts it.
    pub const STOPPED: Self = Self::new(Self::NOT_READY, 0x04, 0x02);
    /// No medium in the drive.
    pub const NO_MEDIUM: Self = Self::new(Self::NOT_READY, 0x3A, 0x00);
    /// Data could not be read.
    pub const UNRECOVERED_READ: Self = Self::new(Self::MEDIUM_ERROR, 0x11, 0x00);
    /// Data could not be written.
    pub const WRITE_ERROR: Self = Self::new(Self::MEDIUM_ERROR, 0x0C, 0x00);
    /// The storage below failed without saying where.
    pub const INTERNAL_FAILURE: Self = Self::new(Self::HARDWARE_ERROR, 0x44, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(Self::ILLEGAL_REQUEST, 0x1A, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPERATION_CODE: Self = Self::new(Self::ILLEGAL_REQUEST, 0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(Self::ILLEGAL_REQUEST, 0x21, 0x00);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: Self = Self::new(Self::ILLEGAL_REQUEST, 0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const NO_SUCH_UNIT: Self = Self::new(Self::ILLEGAL_REQUEST, 0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_LIST: Self = Self::new(Self::ILLEGAL_REQUEST, 0x26, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVED_PAGES: Self = Self::new(Self::ILLEGAL_REQUEST, 0x39, 0x00);
    /// MEDIUM REMOVAL PREVENTED.
    pub const REMOVAL_PREVENTED: Self = Self::new(Self::ILLEGAL_REQUEST, 0x53, 0x02);
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    pub const MEDIUM_CHANGED: Self = Self::new(Self::UNIT_ATTENTION, 0x28, 0x00);
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self::new(Self::UNIT_ATTENTION, 0x2A, 0x09);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(Self::DATA_PROTECT, 0x27, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT: the storage below is full. Linux makes ENOSPC of it.
    pub const NO_SPACE: Self = Self::new(Self::DATA_PROTECT, 0x27, 0x07);

    /// What a failed read of the image tells the child.
    pub(crate) fn of_read(_: &io::Error) -> Self {
        Self::UNRECOVERED_READ
    }

    /// What a failed change of the image tells the child.
    pub(crate) fn of_write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NO_SPACE,
            io::ErrorKind::ReadOnlyFilesystem => Self::WRITE_PROTECTED,
            _ => Self::WRITE_ERROR,
        }
    }

    /// Sense data in fixed format.
    pub fn fixed(&self) -> [u8; SENSE_LEN] {
        let mut data = [0; SENSE_LEN];
        data[0] = 0x70;
        data[2] = self.key;
        data[7] = (SENSE_LEN - 8) as u8;
        data[12] = self.asc;
        data[13] = self.ascq;
        data
    }

    /// Sense data in descriptor format, without descriptors.
    pub fn descriptor(&self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }
}
