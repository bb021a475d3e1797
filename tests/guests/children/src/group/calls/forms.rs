//! What the control word and the places of the blocks must be.

use hypercall::{CALLS, Call, CallSpec};
use machine::verdict::{check, equal, note};
use tlfs::{CallCode, HvError};

use crate::arena::FRAME;
use crate::client::call::{self, FAULTED};

fn raw(control: u64, input: u64, output: u64) -> u64 {
    call::raw(control, input, output) & 0xFFFF
}

/// What the control word and the places of the blocks must be, for each call of the table.
pub fn forms() {
    let (input, output) = (call::input_page(), call::output_page());
    let specs: &[CallSpec<Call>] = CALLS.specs();
    let mut bad = 0;
    let mut tried = 0;
    let mut expect = |what: &str, spec: &CallSpec<Call>, got: u64, wanted: HvError| {
        tried += 1;
        if got != u64::from(wanted.0) {
            bad += 1;
            note(format_args!(
                "{} {what}: {got:#x}, not {wanted:?}",
                spec.name
            ));
        }
    };
    for spec in specs {
        let (code, shape) = (u64::from(spec.code.0), &spec.shape);
        let (at, to) = (input.address(), output.address());
        let wrong = HvError::INVALID_HYPERCALL_INPUT;
        input.fill(0);
        let once = if shape.rep.is_some() { 1 << 32 } else { 0 };
        if shape.rep.is_some() {
            expect("without elements", spec, raw(code, at, to), wrong);
            expect(
                "with a start at its end",
                spec,
                raw(code | 2 << 32 | 2 << 48, at, to),
                wrong,
            );
        } else {
            expect("with elements", spec, raw(code | 1 << 32, at, to), wrong);
            expect("with a start", spec, raw(code | 1 << 48, at, to), wrong);
        }
        if !shape.variable_header {
            expect(
                "with a variable header",
                spec,
                raw(code | once | 1 << 17, at, to),
                wrong,
            );
        }
        if !shape.fast {
            expect(
                "in the fast form",
                spec,
                raw(code | once | 1 << 16, 0, 0),
                wrong,
            );
        }
        for bit in [27, 30, 44, 47, 60, 63] {
            let got = raw(code | once | 1 << bit, at, to);
            expect("with a reserved bit", spec, got, wrong);
        }
        // Those that the parent may not make say that first.
        if matches!(
            spec.code,
            CallCode::GET_PARTITION_ID
                | CallCode::START_VIRTUAL_PROCESSOR
                | CallCode::GET_VP_INDEX_FROM_APIC_ID
        ) {
            expect(
                "by the parent",
                spec,
                raw(code | once, at, to),
                HvError::ACCESS_DENIED,
            );
            continue;
        }
        let place = HvError::INVALID_ALIGNMENT;
        if shape.input > 0 {
            expect(
                "with input at an odd place",
                spec,
                raw(code | once, at + 4, to),
                place,
            );
            let across = at + FRAME - u64::from(shape.input) / 8 * 8
                + if shape.input.is_multiple_of(8) { 8 } else { 0 };
            if !across.is_multiple_of(FRAME) {
                expect(
                    "with input across pages",
                    spec,
                    raw(code | once, across, to),
                    place,
                );
            }
            let gone = raw(code | once, 1 << 45, to);
            expect_no_access(spec, gone, "input");
        }
        if shape.output > 0 && !shape.is_output_open {
            expect(
                "with output at an odd place",
                spec,
                raw(code | once, at, to + 4),
                place,
            );
        }
    }
    equal("calls: forms that got another status than theirs", bad, 0);
    note(format_args!("{tried} forms of {} calls", specs.len()));
}

fn expect_no_access(spec: &CallSpec<Call>, got: u64, what: &str) {
    // The root has no parent that could answer an intercept: #GP.
    if got != u64::from(FAULTED) | 13 {
        check(
            format_args!("{}: {what} that is not there # {got:#x}", spec.name),
            got != 0,
        );
    }
}
