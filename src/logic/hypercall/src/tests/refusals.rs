//! Calls that are refused before a handler sees them.

use super::*;

#[test]
fn an_unknown_code_is_refused_as_such() {
    for code in [0, 6, 0x13F, 0x140, 0x7FFF, 0x8000, 0x8008, 0xFFFF] {
        refused(code, 0x1000, 0x2000, HvError::INVALID_HYPERCALL_CODE);
        // also when the control word is bad in other ways
        refused(
            code | 1 << 63,
            0x1000,
            0x2000,
            HvError::INVALID_HYPERCALL_CODE,
        );
    }
}

#[test]
fn each_reserved_bit_is_refused() {
    for bit in (0..64).filter(|bit| Control::RESERVED & 1 << bit != 0) {
        refused(
            1 | 1 << bit,
            0x1000,
            0x2000,
            HvError::INVALID_HYPERCALL_INPUT,
        );
        refused(
            3 | REPS | 1 << bit,
            0x1000,
            0x2000,
            HvError::INVALID_HYPERCALL_INPUT,
        );
    }
}

#[test]
fn rep_fields_belong_to_rep_calls_only() {
    refused(1 | REPS, 0x1000, 0x2000, HvError::INVALID_HYPERCALL_INPUT);
    refused(1 | START, 0x1000, 0x2000, HvError::INVALID_HYPERCALL_INPUT);
    refused(
        4 | REPS | VARIABLE,
        0x1000,
        0,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(3, 0x1000, 0x2000, HvError::INVALID_HYPERCALL_INPUT);
    refused(3 | START, 0x1000, 0x2000, HvError::INVALID_HYPERCALL_INPUT);
    refused(
        3 | (4 * REPS) | (4 * START),
        0x1000,
        0x2000,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        3 | (4 * REPS) | (5 * START),
        0x1000,
        0x2000,
        HvError::INVALID_HYPERCALL_INPUT,
    );
}

#[test]
fn a_variable_header_belongs_to_calls_that_have_one() {
    refused(
        1 | VARIABLE,
        0x1000,
        0x2000,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        2 | Control::FAST | VARIABLE,
        0,
        0,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        3 | REPS | VARIABLE,
        0x1000,
        0x2000,
        HvError::INVALID_HYPERCALL_INPUT,
    );
}

#[test]
fn the_fast_form_belongs_to_calls_that_have_one() {
    refused(1 | Control::FAST, 0, 0, HvError::INVALID_HYPERCALL_INPUT);
    refused(
        3 | REPS | Control::FAST,
        0,
        0,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(4 | Control::FAST, 0, 0, HvError::INVALID_HYPERCALL_INPUT);
}

#[test]
fn a_caller_without_the_privilege_is_denied() {
    refused(5, 0, 0, HvError::ACCESS_DENIED);
    let mut handler = Recorder::new();
    let registers = Registers {
        control: Control(5),
        input: 0,
        output: 0,
    };
    let privileges = Privileges::CREATE_PARTITIONS | Privileges::SYNIC;
    let outcome = dispatch(
        &DEMO,
        privileges,
        &registers,
        &mut Memory::default(),
        || std::boxed::Box::new(Scratch::new()),
        &mut handler,
    );
    assert_eq!(outcome, Outcome::Complete(ResultWord(0)));
    assert_eq!(handler.calls.len(), 1);
}

#[test]
fn blocks_are_aligned_to_8_and_stay_in_their_page() {
    for bad in [0x1001, 0x1004, 0x1FF0] {
        refused(1, bad, 0x2000, HvError::INVALID_ALIGNMENT);
    }
    for bad in [0x2004, 0x2FF8] {
        refused(1, 0x1000, bad, HvError::INVALID_ALIGNMENT);
    }
    refused(1, u64::MAX - 7, 0x2000, HvError::INVALID_ALIGNMENT);
    // 8 + 511 * 8 fill a page; one element more does not fit, wherever it starts
    refused(3 | (512 * REPS), 0x1000, 0x2000, HvError::INVALID_ALIGNMENT);
    refused(3 | (511 * REPS), 0x1008, 0x2000, HvError::INVALID_ALIGNMENT);
    refused(4 | (511 * VARIABLE), 0x1000, 0, HvError::INVALID_ALIGNMENT);
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    assert_eq!(status(&mut memory, &mut handler, 1, 0x1FE8, 0x2FF0), (0, 0));
    assert_eq!(
        status(&mut memory, &mut handler, 3 | (511 * REPS), 0x1000, 0x2000),
        (0, 511)
    );
}
