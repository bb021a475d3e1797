//! Calls whose parameters do not lie in a caller's memory: they came in a packet.

use tlfs::{Control, HvError, Privileges, ResultWord};

use crate::dispatch::{Handler, answered, check_control, conclude};
use crate::table::{RepSpec, Table};
use crate::{Body, Outcome};

/// Carries out a piece of the call in `control` for a partition with `privileges`.
///
/// `input` is the fixed part, the variable header and the list, as they would lie in memory; bytes past them are not
/// looked at. `output` takes what the call answers, a list from element 0 on; it stays the same from piece to piece, and
/// `input` too. Answers the outcome, never [`Outcome::NoAccess`], and the bytes of `output` that there are.
///
/// What is refused: as by [`dispatch`](crate::dispatch), and with `INVALID_HYPERCALL_INPUT` the fast form, and an input or
/// output that is shorter than the control word says.
pub fn dispatch_buffers<K: Copy>(
    table: &Table<K>,
    privileges: Privileges,
    control: Control,
    input: &[u8],
    output: &mut [u8],
    handler: &mut dyn Handler<K>,
) -> (Outcome, usize) {
    let refused = |error| (Outcome::Complete(ResultWord::new(Err(error), 0)), 0);
    let Some(spec) = table.lookup(control.code()) else {
        return refused(HvError::INVALID_HYPERCALL_CODE);
    };
    let shape = &spec.shape;
    if control.is_fast() {
        return refused(HvError::INVALID_HYPERCALL_INPUT);
    }
    if let Err(error) = check_control(shape, control) {
        return refused(error);
    }
    if !privileges.contains(spec.privilege) {
        return refused(HvError::ACCESS_DENIED);
    }
    let (count, start) = (control.rep_count(), control.rep_start());
    let rep = shape.rep.unwrap_or(RepSpec {
        input: 0,
        output: 0,
    });
    let header_bytes = usize::from(shape.input);
    let list_at = header_bytes.saturating_add(control.variable_header_bytes());
    let list_bytes = usize::from(count).saturating_mul(usize::from(rep.input));
    let bytes_out = |elements: u16| usize::from(elements).saturating_mul(usize::from(rep.output));
    let output_bytes = usize::from(shape.output).saturating_add(bytes_out(count));
    let parts = input
        .get(..list_at.saturating_add(list_bytes))
        .and_then(|input| input.split_at_checked(list_at));
    let output = match output.get_mut(..output_bytes) {
        // What earlier pieces answered stays.
        Some(output) => {
            if let Some(rest) = output.get_mut(bytes_out(start)..) {
                rest.fill(0);
            }
            output
        }
        None => return refused(HvError::INVALID_HYPERCALL_INPUT),
    };
    let Some(((header, variable_header), list)) =
        parts.and_then(|(head, list)| Some((head.split_at_checked(header_bytes)?, list)))
    else {
        return refused(HvError::INVALID_HYPERCALL_INPUT);
    };
    let mut body = Body {
        header,
        variable_header,
        list,
        output,
        rep,
        count,
        done: start,
        written: 0,
    };
    let result = handler.handle(spec.kind, &mut body);
    let (done, written) = (body.done, body.written);
    let answered = answered(shape, result, start..done, written, output_bytes);
    (conclude(control, result, done), answered.end)
}
