//! A few declarations found in AML without interpreting it ("AML Byte Stream Byte Values").
//!
//! The search is for the bytes of a declaration: the operator, the name, the shape of what follows. A byte
//! sequence inside a string or a buffer could look the same; none is known that does, and the worst outcome is a
//! renamed string.

use alloc::vec::Vec;

use crate::read::{u8_at, u16_at, u32_at};
use crate::table::{HEADER_LEN, fix_checksum};

const NAME_OP: u8 = 0x08;
const METHOD_OP: u8 = 0x14;
const PACKAGE_OP: u8 = 0x12;
const STRING_PREFIX: u8 = 0x0D;
const ROOT_CHAR: u8 = b'\\';
const PROCESSOR_OP: [u8; 2] = [0x5B, 0x83];

/// SLP_TYPa in bits 7:0 and SLP_TYPb in bits 15:8 of the `\_S5_` that `table`, a DSDT or SSDT, declares
/// ("\_Sx (System States)").
pub fn s5_types(table: &[u8]) -> Option<u16> {
    declarations(table, *b"_S5_").find_map(|declaration| {
        if !declaration.is_name || u8_at(table, declaration.after)? != PACKAGE_OP {
            return None;
        }
        let (_, content) = package_length(table, declaration.after.checked_add(1)?)?;
        let elements = u8_at(table, content)?;
        let (a, next) = small_integer(table, content.checked_add(1)?)?;
        // A package of one element holds both types in its two low bytes.
        if elements == 1 {
            return u16::try_from(a).ok();
        }
        let (b, _) = small_integer(table, next)?;
        Some(u16::from_le_bytes([
            u8::try_from(a & 0xFF).ok()?,
            u8::try_from(b & 0xFF).ok()?,
        ]))
    })
}

/// Renames every declaration of `_S3_` in `table`, a DSDT or SSDT, to `XS3_` and corrects the checksum: sleep to
/// memory is not offered then. Returns how many there were.
pub fn hide_s3(table: &mut [u8]) -> usize {
    let names: Vec<usize> = declarations(table, *b"_S3_")
        .map(|declaration| declaration.name)
        .collect();
    for &name in &names {
        if let Some(first) = table.get_mut(name) {
            *first = b'X';
        }
    }
    if !names.is_empty() {
        fix_checksum(table);
    }
    names.len()
}

/// Whether `table` has a string that names a VMBus device: the machine is then itself a Hyper-V guest.
pub fn mentions_vmbus(table: &[u8]) -> bool {
    table.windows(7).any(|window| {
        window == [STRING_PREFIX, b'V', b'M', b'B', b'u', b's', 0] || window == b"\x0DVMBUS\0"
    })
}

/// The first P_BLK port that a `Processor` declaration of `table` gives ("Processor Register Block").
pub fn processor_block(table: &[u8]) -> Option<u16> {
    let body = table.get(HEADER_LEN..)?;
    (0..body.len()).find_map(|at| {
        if body.get(at..)?.first_chunk() != Some(&PROCESSOR_OP) {
            return None;
        }
        let (_, name) = package_length(body, at.checked_add(2)?)?;
        let name = if u8_at(body, name)? == ROOT_CHAR {
            name.checked_add(1)?
        } else {
            name
        };
        if !is_name_segment(body.get(name..)?.first_chunk()?) {
            return None;
        }
        let after = name.checked_add(4)?;
        let (port, len) = (
            u32_at(body, after.checked_add(1)?)?,
            u8_at(body, after.checked_add(5)?)?,
        );
        u16::try_from(port)
            .ok()
            .filter(|&port| len == 6 && port != 0)
    })
}

/// A declaration that was found.
struct Declaration {
    /// Offset of the four letters.
    name: usize,
    /// Offset of what follows them.
    after: usize,
    /// Whether it is a `Name`, else it is a `Method`.
    is_name: bool,
}

/// The declarations of `name` in `table`, as a `Name` or a `Method`, with or without the root prefix.
fn declarations(table: &[u8], name: [u8; 4]) -> impl Iterator<Item = Declaration> {
    let occurs = move |&at: &usize| table.get(at..).and_then(<[u8]>::first_chunk) == Some(&name);
    (HEADER_LEN..table.len()).filter(occurs).filter_map(|at| {
        let mut before = at.checked_sub(1)?;
        if u8_at(table, before)? == ROOT_CHAR {
            before = before.checked_sub(1)?;
        }
        let is_name = u8_at(table, before)? == NAME_OP;
        let found = Declaration {
            name: at,
            after: at.checked_add(4)?,
            is_name,
        };
        (is_name || is_method_before(table, before)).then_some(found)
    })
}

/// Whether a MethodOp and its package length end with the byte at `last`.
fn is_method_before(table: &[u8], last: usize) -> bool {
    (1..=4usize).any(|bytes| {
        let Some(start) = (last + 1).checked_sub(bytes) else {
            return false;
        };
        let Some(op) = start.checked_sub(1) else {
            return false;
        };
        u8_at(table, op) == Some(METHOD_OP)
            && package_length(table, start).is_some_and(|(_, content)| content == last + 1)
    })
}

/// Decodes a PkgLength at `at`: its value, and the offset after it ("Package Length Encoding").
fn package_length(from: &[u8], at: usize) -> Option<(usize, usize)> {
    let lead = u8_at(from, at)?;
    let more = usize::from(lead >> 6);
    let next = at.checked_add(1)?;
    if more == 0 {
        return Some((usize::from(lead & 0x3F), next));
    }
    let tail = from.get(next..next.checked_add(more)?)?;
    let high = tail
        .iter()
        .rev()
        .fold(0usize, |value, &byte| value << 8 | usize::from(byte));
    Some((high << 4 | usize::from(lead & 0xF), next.checked_add(more)?))
}

/// Decodes an integer of at most 32 bits at `at`: its value, and the offset after it.
fn small_integer(from: &[u8], at: usize) -> Option<(u32, usize)> {
    let next = at.checked_add(1)?;
    match u8_at(from, at)? {
        0x00 => Some((0, next)),
        0x01 => Some((1, next)),
        0x0A => Some((u8_at(from, next)?.into(), next.checked_add(1)?)),
        0x0B => Some((u16_at(from, next)?.into(), next.checked_add(2)?)),
        0x0C => Some((u32_at(from, next)?, next.checked_add(4)?)),
        0xFF => Some((0xFF, next)),
        _ => None,
    }
}

fn is_name_segment(name: &[u8; 4]) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    is_letter(name[0])
        && name[1..]
            .iter()
            .all(|&byte| is_letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
