//! Calls out of buffers.

use super::*;
use crate::dispatch_buffers;

fn piece(
    control: Control,
    input: &[u8],
    output: &mut [u8],
    recorder: &mut Recorder,
) -> (Outcome, usize) {
    dispatch_buffers(&DEMO, Privileges::empty(), control, input, output, recorder)
}

fn refused(control: u64, input: &[u8], output: &mut [u8], error: HvError) {
    let mut recorder = Recorder::new();
    let (outcome, bytes) = piece(Control(control), input, output, &mut recorder);
    assert!(recorder.calls.is_empty() && bytes == 0);
    assert_eq!(outcome, Outcome::Complete(ResultWord::new(Err(error), 0)));
}

#[test]
fn a_list_goes_on_where_it_stopped_and_keeps_what_it_answered() {
    let mut recorder = Recorder::new();
    recorder.slice = 2;
    let mut input = std::vec![0; 8];
    (1..=3u64).for_each(|value| input.extend(value.to_le_bytes()));
    input.push(0xEE);
    let mut output = [0xEE; 64];
    let control = Control(3 | 3 << 32);
    let (outcome, _) = piece(control, &input, &mut output, &mut recorder);
    assert_eq!(outcome, Outcome::Continue(control.with_rep_start(2)));
    let (outcome, bytes) = piece(
        control.with_rep_start(2),
        &input,
        &mut output,
        &mut recorder,
    );
    assert_eq!(outcome, Outcome::Complete(ResultWord::new(Ok(()), 3)));
    assert_eq!(recorder.elements, [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(output[..bytes], [2, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(output[bytes], 0xEE);
}

#[test]
fn an_error_tells_the_elements_before_it() {
    let mut recorder = Recorder::new();
    let mut input = std::vec![0; 8];
    input.extend([5u64, 13].iter().flat_map(|value| value.to_le_bytes()));
    let mut output = [0; 64];
    let (outcome, bytes) = piece(Control(3 | 2 << 32), &input, &mut output, &mut recorder);
    let word = ResultWord::new(Err(HvError::INVALID_PARAMETER), 1);
    assert_eq!((outcome, bytes), (Outcome::Complete(word), 4));
}

#[test]
fn what_does_not_fit_the_declaration_is_refused() {
    let output = &mut [0; 4096];
    let input = [0; 64];
    refused(0x77, &input, output, HvError::INVALID_HYPERCALL_CODE);
    refused(1, &input[..23], output, HvError::INVALID_HYPERCALL_INPUT);
    refused(
        3 | 3 << 32,
        &input[..31],
        output,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        3 | 3 << 32,
        &input,
        &mut output[..11],
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        4 | 2 << 17,
        &input[..31],
        output,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        2 | 1 << 16,
        &input,
        output,
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(5, &input, output, HvError::ACCESS_DENIED);
}
