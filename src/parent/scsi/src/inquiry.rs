//! INQUIRY: who the unit is.

use crate::cdb::Cdb;
use crate::completion::{Data, Stop};
use crate::sense::Sense;

/// What tells one unit from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 128 bits that no other disk has, and that the disk keeps.
    pub unique_id: [u8; 16],
    /// Serial number: printable ASCII, at most [`Identity::MAX_SERIAL`] bytes. Empty means: the unique id in hex.
    pub serial: String,
}

impl Identity {
    /// Most bytes of a serial number.
    pub const MAX_SERIAL: usize = 64;

    /// An identity with the unique id for a serial number.
    pub fn new(unique_id: [u8; 16]) -> Self {
        Self {
            unique_id,
            serial: String::new(),
        }
    }

    fn serial(&self) -> Vec<u8> {
        if self.serial.is_empty() {
            return self
                .unique_id
                .iter()
                .flat_map(|byte| format!("{byte:02x}").into_bytes())
                .collect();
        }
        self.serial
            .bytes()
            .map(|byte| if byte.is_ascii_graphic() { byte } else { b' ' })
            .take(Self::MAX_SERIAL)
            .collect()
    }
}

/// Peripheral device types (SPC-4, "Peripheral device type").
pub(crate) const DISK: u8 = 0x00;
pub(crate) const CD_ROM: u8 = 0x05;

/// Hyper-V's vendor name: Linux takes a unit of it for an SPC-3 one, whatever version of the protocol was agreed on.
const VENDOR: &[u8; 8] = b"Msft    ";
const REVISION: &[u8; 4] = b"1.0 ";

/// Answers INQUIRY. `pages` are the vital product data that the unit has beside 00, 80 and 83, in ascending order.
pub(crate) fn inquiry(
    cdb: &Cdb,
    data: &Data<'_>,
    kind: u8,
    product: &[u8; 16],
    identity: &Identity,
    pages: &[(u8, Vec<u8>)],
) -> Result<u32, Stop> {
    let allocation_len = usize::from(cdb.be16::<3>());
    let page = cdb.byte::<2>();
    if !cdb.bit::<1>(0) {
        if page != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        return data.answer(&standard(kind, product), allocation_len);
    }
    let content = match page {
        0x00 => [0x00, 0x80, 0x83]
            .into_iter()
            .chain(pages.iter().map(|(number, _)| *number))
            .collect(),
        0x80 => identity.serial(),
        0x83 => designators(identity),
        _ => match pages.iter().find(|(number, _)| *number == page) {
            Some((_, content)) => content.clone(),
            None => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
        },
    };
    let mut answer = vec![kind, page];
    // All pages are short.
    answer.extend((content.len() as u16).to_be_bytes());
    answer.extend(content);
    data.answer(&answer, allocation_len)
}

/// Standard data for a unit that is not there: qualifier 3, type 1Fh. An error would not do: Linux' driver makes a
/// success of it, and a disk of that.
pub(crate) fn absent() -> [u8; 36] {
    let mut answer = [0; 36];
    answer[0] = 0x7F;
    answer[2] = 0x05;
    answer[3] = 0x02;
    answer[4] = 31;
    answer
}

fn standard(kind: u8, product: &[u8; 16]) -> Vec<u8> {
    let is_removable = kind == CD_ROM;
    let mut answer = vec![
        kind,
        u8::from(is_removable) << 7,
        0x05, // SPC-3
        0x02, // response format
        0,    // bytes that follow, below
        0,
        0,
        0x02, // command queuing
    ];
    answer.extend(VENDOR);
    answer.extend(product);
    answer.extend(REVISION);
    // Vendor specific and reserved bytes, then version descriptors: SAM-3, SPC-3 and SBC-2 or MMC-4.
    answer.resize(58, 0);
    answer.extend(0x0060u16.to_be_bytes());
    answer.extend(0x0300u16.to_be_bytes());
    let set: u16 = if kind == CD_ROM { 0x03A0 } else { 0x0320 };
    answer.extend(set.to_be_bytes());
    answer.resize(74, 0);
    answer[4] = (answer.len() - 5) as u8;
    answer
}

/// Device identification: a name of 64 bits that is locally assigned, and the vendor's name with the serial number.
fn designators(identity: &Identity) -> Vec<u8> {
    let mut local = [0; 8];
    // Folded rather than cut: some makers of ids vary only one half.
    let (front, back) = identity.unique_id.split_at(8);
    for ((place, front), back) in local.iter_mut().zip(front).zip(back) {
        *place = front ^ back;
    }
    // NAA 3: locally assigned (SPC-4, "NAA designator format").
    local[0] = 0x30 | local[0] & 0x0F;
    let mut content = vec![0x01, 0x03, 0, local.len() as u8];
    content.extend(local);
    let mut name = VENDOR.to_vec();
    name.extend(identity.serial());
    content.extend([0x02, 0x01, 0, name.len() as u8]);
    content.extend(name);
    content
}
