//! One SCSI command, and how it ended.

use crate::packet::BODY_LEN;
use crate::{bytes, put};

/// Bytes of the structure in a packet's body: all of it.
pub const SCSI_REQUEST_LEN: usize = 52;

/// Longest command descriptor block.
pub const CDB_LEN: usize = 16;

/// Most bytes of sense data in an answer. They take the place of the command.
pub const SENSE_LEN: usize = 20;

// Offsets in the body of a packet.
const LENGTH: usize = 0;
const SRB_STATUS: usize = 2;
const SCSI_STATUS: usize = 3;
/// Port, path, target and LUN, a byte each.
const ADDRESS: usize = 4;
const CDB_LENGTH: usize = 8;
const SENSE_LENGTH: usize = 9;
const DIRECTION: usize = 10;
const TRANSFER_LENGTH: usize = 12;
const CDB: usize = 16;
const QUEUE_TAG: usize = 38;
const QUEUE_ACTION: usize = 39;
const SRB_FLAGS: usize = 40;
const TIMEOUT: usize = 44;
const SORT_KEY: usize = 48;

const _: () = assert!(SCSI_REQUEST_LEN == BODY_LEN && SORT_KEY + 4 == SCSI_REQUEST_LEN);
const _: () = assert!(CDB + SENSE_LEN + 2 == QUEUE_TAG);

/// Where a command goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The guest's own number of the controller; nothing depends on it.
    pub port: u8,
    /// Linux calls it the channel.
    pub path: u8,
    /// Target on the path.
    pub target: u8,
    /// Logical unit of the target.
    pub lun: u8,
}

/// Which way data goes, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirection {
    /// To the device.
    Write,
    /// From the device.
    Read,
    /// No data.
    None,
}

/// How the request ended, before SCSI: `SRB_STATUS_*` of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SrbStatus(pub u8);

impl SrbStatus {
    /// Done.
    pub const SUCCESS: Self = Self(0x01);
    /// Ended before it was done.
    pub const ABORTED: Self = Self(0x02);
    /// The SCSI status tells.
    pub const ERROR: Self = Self(0x04);
    /// The request itself makes no sense.
    pub const INVALID_REQUEST: Self = Self(0x06);
    /// No such path.
    pub const INVALID_PATH: Self = Self(0x07);
    /// Nobody answers at this target.
    pub const SELECTION_TIMEOUT: Self = Self(0x0A);
    /// The bus was reset.
    pub const BUS_RESET: Self = Self(0x0E);
    /// The buffer is smaller than what the command moves.
    pub const DATA_OVERRUN: Self = Self(0x12);
    /// No such logical unit. Linux drops the device if it knew it.
    pub const INVALID_LUN: Self = Self(0x20);
    /// The provider failed.
    pub const INTERNAL_ERROR: Self = Self(0x30);

    /// Bit: the answer carries sense data.
    pub const AUTOSENSE_VALID: u8 = 0x80;

    /// With the mark that sense data is there.
    #[must_use]
    pub const fn with_sense(self) -> Self {
        Self(self.0 | Self::AUTOSENSE_VALID)
    }
}

/// Status byte of SCSI (SAM-5, "Status codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiStatus(pub u8);

impl ScsiStatus {
    /// GOOD.
    pub const GOOD: Self = Self(0);
    /// CHECK CONDITION: sense data says more.
    pub const CHECK_CONDITION: Self = Self(2);
    /// BUSY.
    pub const BUSY: Self = Self(8);
}

/// `SRB_FLAGS_*` of Windows. The direction field decides, not these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SrbFlags(pub u32);

impl SrbFlags {
    /// Queue action is valid.
    pub const QUEUE_ACTION_ENABLE: u32 = 0x02;
    /// Data comes in.
    pub const DATA_IN: u32 = 0x40;
    /// Data goes out.
    pub const DATA_OUT: u32 = 0x80;
}

/// Why a request cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// The command is longer than [`CDB_LEN`] or empty.
    CdbLength(u8),
    /// No direction.
    Direction(u8),
}

/// `EXECUTE_SRB`, checked: the command has 1 to [`CDB_LEN`] bytes and the direction is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiRequest {
    /// Where it goes.
    pub address: Address,
    /// Which way data goes.
    pub direction: DataDirection,
    /// Bytes of data.
    pub transfer_bytes: u32,
    /// Room for sense data in bytes, at most [`SENSE_LEN`].
    pub sense_bytes: u8,
    /// Flags.
    pub flags: SrbFlags,
    /// Seconds that the guest means to wait. Linux waits for ever.
    pub timeout_s: u32,
    cdb: [u8; CDB_LEN],
    cdb_bytes: u8,
}

impl ScsiRequest {
    /// A request for `cdb`, whose first [`CDB_LEN`] bytes count.
    pub fn new(
        address: Address,
        direction: DataDirection,
        transfer_bytes: u32,
        cdb: &[u8],
    ) -> Self {
        let cdb_bytes = cdb.len().min(CDB_LEN);
        let mut copy = [0; CDB_LEN];
        put(&mut copy, 0, cdb.get(..cdb_bytes).unwrap_or_default());
        Self {
            address,
            direction,
            transfer_bytes,
            sense_bytes: SENSE_LEN as u8,
            flags: SrbFlags::default(),
            timeout_s: 60,
            cdb: copy,
            cdb_bytes: cdb_bytes as u8,
        }
    }

    /// The command as it was sent, 1 to [`CDB_LEN`] bytes.
    pub fn cdb(&self) -> &[u8] {
        self.cdb
            .get(..usize::from(self.cdb_bytes))
            .unwrap_or(&self.cdb)
    }

    /// Reads the body of `EXECUTE_SRB`.
    pub fn decode(body: &[u8; BODY_LEN]) -> Result<Self, BadRequest> {
        let [cdb_bytes] = bytes(body, CDB_LENGTH);
        if cdb_bytes == 0 || usize::from(cdb_bytes) > CDB_LEN {
            return Err(BadRequest::CdbLength(cdb_bytes));
        }
        let direction = match bytes(body, DIRECTION) {
            [0] => DataDirection::Write,
            [1] => DataDirection::Read,
            [2] => DataDirection::None,
            [other] => return Err(BadRequest::Direction(other)),
        };
        let [sense_bytes] = bytes(body, SENSE_LENGTH);
        let [port, path, target, lun] = bytes(body, ADDRESS);
        Ok(Self {
            address: Address {
                port,
                path,
                target,
                lun,
            },
            direction,
            transfer_bytes: u32::from_le_bytes(bytes(body, TRANSFER_LENGTH)),
            sense_bytes: sense_bytes.min(SENSE_LEN as u8),
            flags: SrbFlags(u32::from_le_bytes(bytes(body, SRB_FLAGS))),
            timeout_s: u32::from_le_bytes(bytes(body, TIMEOUT)),
            cdb: bytes(body, CDB),
            cdb_bytes,
        })
    }

    /// The body of `EXECUTE_SRB`, as a guest sends it.
    pub fn encode(&self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        put(&mut body, LENGTH, &(SCSI_REQUEST_LEN as u16).to_le_bytes());
        let Address {
            port,
            path,
            target,
            lun,
        } = self.address;
        put(&mut body, ADDRESS, &[port, path, target, lun]);
        put(&mut body, CDB_LENGTH, &[self.cdb_bytes, self.sense_bytes]);
        let direction = match self.direction {
            DataDirection::Write => 0,
            DataDirection::Read => 1,
            DataDirection::None => 2,
        };
        put(&mut body, DIRECTION, &[direction]);
        put(
            &mut body,
            TRANSFER_LENGTH,
            &self.transfer_bytes.to_le_bytes(),
        );
        put(&mut body, CDB, &self.cdb);
        put(&mut body, QUEUE_TAG, &[0xFF]);
        put(&mut body, QUEUE_ACTION, &[0x20]);
        put(&mut body, SRB_FLAGS, &self.flags.0.to_le_bytes());
        put(&mut body, TIMEOUT, &self.timeout_s.to_le_bytes());
        body
    }
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiResponse {
    /// How it ended.
    pub srb_status: SrbStatus,
    /// Status of SCSI.
    pub scsi_status: ScsiStatus,
    /// Bytes moved. With a success, the guest takes what is missing for a residual.
    pub transferred_bytes: u32,
    sense: [u8; SENSE_LEN],
    sense_bytes: u8,
}

impl ScsiResponse {
    /// An end without sense data.
    pub fn new(srb_status: SrbStatus, scsi_status: ScsiStatus, transferred_bytes: u32) -> Self {
        Self {
            srb_status,
            scsi_status,
            transferred_bytes,
            sense: [0; SENSE_LEN],
            sense_bytes: 0,
        }
    }

    /// A check condition with `sense`, of which the first `room` bytes go out, at most [`SENSE_LEN`]. No data counts as
    /// moved.
    pub fn check_condition(sense: &[u8], room: u8) -> Self {
        let sense_bytes = sense.len().min(usize::from(room)).min(SENSE_LEN);
        let mut response = Self::new(SrbStatus::ERROR, ScsiStatus::CHECK_CONDITION, 0);
        if sense_bytes > 0 {
            response.srb_status = SrbStatus::ERROR.with_sense();
            response.sense_bytes = sense_bytes as u8;
            put(
                &mut response.sense,
                0,
                sense.get(..sense_bytes).unwrap_or_default(),
            );
        }
        response
    }

    /// The sense data, possibly none.
    pub fn sense(&self) -> &[u8] {
        self.sense
            .get(..usize::from(self.sense_bytes))
            .unwrap_or(&self.sense)
    }

    /// The body of the answer to the request with this `body`: what the request said, with the end put in.
    pub fn encode(&self, body: &[u8; BODY_LEN]) -> [u8; BODY_LEN] {
        let mut body = *body;
        put(&mut body, LENGTH, &(SCSI_REQUEST_LEN as u16).to_le_bytes());
        put(&mut body, SRB_STATUS, &[self.srb_status.0]);
        put(&mut body, SCSI_STATUS, &[self.scsi_status.0]);
        put(&mut body, SENSE_LENGTH, &[self.sense_bytes]);
        put(
            &mut body,
            TRANSFER_LENGTH,
            &self.transferred_bytes.to_le_bytes(),
        );
        if self.sense_bytes > 0 {
            put(&mut body, CDB, &self.sense);
        }
        body
    }

    /// Reads the body of an answer, as a guest does.
    pub fn decode(body: &[u8; BODY_LEN]) -> Self {
        let [srb_status] = bytes(body, SRB_STATUS);
        let [scsi_status] = bytes(body, SCSI_STATUS);
        let has_sense = srb_status & SrbStatus::AUTOSENSE_VALID != 0;
        let [sense_bytes] = bytes(body, SENSE_LENGTH);
        let sense_bytes = if has_sense {
            sense_bytes.min(SENSE_LEN as u8)
        } else {
            0
        };
        Self {
            srb_status: SrbStatus(srb_status),
            scsi_status: ScsiStatus(scsi_status),
            transferred_bytes: u32::from_le_bytes(bytes(body, TRANSFER_LENGTH)),
            sense: if has_sense {
                bytes(body, CDB)
            } else {
                [0; SENSE_LEN]
            },
            sense_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Operation, Packet};

    fn read_10() -> ScsiRequest {
        let address = Address {
            port: 3,
            path: 0,
            target: 1,
            lun: 7,
        };
        let cdb = [0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0];
        ScsiRequest::new(address, DataDirection::Read, 512, &cdb)
    }

    #[test]
    fn fields_lie_where_linux_puts_them() {
        let mut packet = Packet::notice(Operation::EXECUTE_SRB);
        packet.body = read_10().encode();
        let payload = packet.encode();
        assert_eq!(payload[12..14], [52, 0]);
        assert_eq!(payload[16..24], [3, 0, 1, 7, 10, 20, 1, 0]);
        assert_eq!(payload[24..28], [0, 2, 0, 0]);
        assert_eq!(payload[28..38], [0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0]);
        assert_eq!(payload[50..52], [0xFF, 0x20]);
        assert_eq!(payload[56..60], [60, 0, 0, 0]);
        assert_eq!(ScsiRequest::decode(&packet.body), Ok(read_10()));
    }

    #[test]
    fn lengths_and_directions_are_checked() {
        let mut body = read_10().encode();
        body[CDB_LENGTH] = 17;
        assert_eq!(ScsiRequest::decode(&body), Err(BadRequest::CdbLength(17)));
        body[CDB_LENGTH] = 0;
        assert_eq!(ScsiRequest::decode(&body), Err(BadRequest::CdbLength(0)));
        body[CDB_LENGTH] = 6;
        body[DIRECTION] = 3;
        assert_eq!(ScsiRequest::decode(&body), Err(BadRequest::Direction(3)));
    }

    #[test]
    fn an_answer_carries_sense_where_the_command_was() {
        let body = read_10().encode();
        let response = ScsiResponse::check_condition(&[0x70, 0, 5], 20);
        let answer = response.encode(&body);
        assert_eq!(answer[SRB_STATUS..=SCSI_STATUS], [0x84, 2]);
        assert_eq!(answer[SENSE_LENGTH], 3);
        assert_eq!(answer[CDB..CDB + 4], [0x70, 0, 5, 0]);
        assert_eq!(answer[TRANSFER_LENGTH..TRANSFER_LENGTH + 4], [0; 4]);
        assert_eq!(ScsiResponse::decode(&answer), response);
    }

    #[test]
    fn without_room_for_sense_there_is_none() {
        let response = ScsiResponse::check_condition(&[0x70, 0, 5], 0);
        assert_eq!(response.srb_status, SrbStatus::ERROR);
        assert!(response.sense().is_empty());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), BODY_LEN)) {
            let body: [u8; BODY_LEN] = body.try_into().unwrap();
            if let Ok(request) = ScsiRequest::decode(&body) {
                prop_assert!((1..=CDB_LEN).contains(&request.cdb().len()));
                prop_assert!(usize::from(request.sense_bytes) <= SENSE_LEN);
                prop_assert_eq!(ScsiRequest::decode(&request.encode()), Ok(request));
            }
            let _ = ScsiResponse::decode(&body);
        }
    }
}
