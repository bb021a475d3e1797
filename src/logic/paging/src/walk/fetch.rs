//! Reading a guest's instruction again, for processors that hand over no bytes with an exit.

use addr::{Gpa, Gva, PAGE_SIZE};
use x86::{Segment, efer};

use super::{Access, Fault, GuestPhysical, PagingState, translate};

/// The linear address of the instruction at `rip` in code segment `cs`: in 64-bit code `rip` itself, elsewhere
/// the sum with the segment's base, of 32 bits.
pub fn fetch_address(cs: &Segment, rip: u64, efer: u64) -> Gva {
    if is_64_bit(cs, efer) {
        Gva::new(rip)
    } else {
        Gva::new(cs.base.wrapping_add(rip) & 0xFFFF_FFFF)
    }
}

fn is_64_bit(cs: &Segment, efer: u64) -> bool {
    efer & efer::LMA != 0 && cs.attributes & Segment::LONG != 0
}

/// Copies the bytes at `rip` of code segment `cs` to `bytes`, at most 4096 of them, and returns how many there
/// are. Fewer than asked for where the next page has no translation or no memory: that is the guest's own fault
/// only if the instruction needs them.
///
/// The segment's limit is not checked; the processor did when it fetched the instruction itself.
///
/// # Errors
/// The [`Fault`] at the first byte, or [`Fault::NoTable`] with its address when no memory is there.
pub fn fetch(
    state: &PagingState,
    mem: &impl GuestPhysical,
    cs: &Segment,
    rip: u64,
    bytes: &mut [u8],
) -> Result<usize, Fault> {
    let first = fetch_address(cs, rip, state.efer);
    let gpa = translate(state, mem, first, Access::Execute)?.gpa;
    let in_page = (PAGE_SIZE as usize - first.page_offset()).min(bytes.len());
    let (head, tail) = bytes.split_at_mut(in_page);
    let copied = copy(mem, gpa, head);
    if copied == 0 && in_page > 0 {
        return Err(Fault::NoTable(gpa));
    }
    if copied < in_page || tail.is_empty() {
        return Ok(copied);
    }
    let next = fetch_address(cs, rip.wrapping_add(in_page as u64), state.efer);
    let more = match translate(state, mem, next, Access::Execute) {
        Ok(found) => copy(mem, found.gpa, tail),
        Err(_) => 0,
    };
    Ok(copied.saturating_add(more))
}

/// Copies from `gpa` to the end of `bytes` or of the page; returns how many bytes there are.
fn copy(mem: &impl GuestPhysical, gpa: Gpa, bytes: &mut [u8]) -> usize {
    let mut copied = 0;
    let mut word_at = gpa.align_down(8);
    let mut skip = (gpa.get() & 7) as usize;
    while copied < bytes.len() && word_at.page() == gpa.page() {
        let Some(word) = mem.read_u64(word_at) else {
            break;
        };
        for (to, from) in bytes
            .iter_mut()
            .skip(copied)
            .zip(word.to_le_bytes().into_iter().skip(skip))
        {
            *to = from;
            copied = copied.saturating_add(1);
        }
        skip = 0;
        let Some(next) = word_at.checked_add(8) else {
            break;
        };
        word_at = next;
    }
    copied
}
