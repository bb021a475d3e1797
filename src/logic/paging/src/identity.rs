//! Identity mapping with the memory types of the MTRRs.

use addr::Spa;

use crate::attributes::Attributes;
use crate::cleanup::Cleanup;
use crate::memory::TableMemory;
use crate::mtrr::MtrrState;
use crate::table::{EditError, Table};

/// Maps `len` bytes at `start` to themselves, with the rights of `attributes` and the memory types of `mtrr`.
/// No leaf straddles two types. What is left to do afterwards is added to `cleanup`, on failure too.
///
/// # Errors
/// Any [`EditError`]. Every run of one memory type is mapped wholly or not at all, in the order of addresses;
/// to call again continues.
pub fn map_identity(
    table: &mut Table,
    mem: &mut dyn TableMemory,
    start: Spa,
    len: u64,
    attributes: Attributes,
    mtrr: &MtrrState,
    cleanup: &mut Cleanup,
) -> Result<(), EditError> {
    let mut at = start;
    let mut left = len;
    while left > 0 {
        let (memory_type, run) = mtrr.type_at(at);
        let run = run.min(left);
        let done = table.map(mem, at.get(), run, at, attributes.with_type(memory_type))?;
        cleanup.absorb(done, mem);
        left -= run;
        at = at.checked_add(run).ok_or(EditError::OutOfRange)?;
    }
    Ok(())
}
