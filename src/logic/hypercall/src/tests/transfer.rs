//! What a handler gets, and what the caller gets back.

use proptest::prelude::*;

use super::*;

/// What [`Demo::Block`] answers: 15 bytes, and zeros where it wrote nothing.
fn padded() -> [u8; 16] {
    let mut bytes = [0x5A; 16];
    bytes[15] = 0;
    bytes
}

#[test]
fn an_address_that_a_call_does_not_use_is_ignored() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    assert_eq!(status(&mut memory, &mut handler, 4, 0x1000, 3), (0, 0));
    assert_eq!(
        status(&mut memory, &mut handler, 0x8007 | REPS, 0x1000, u64::MAX),
        (0, 1)
    );
    assert_eq!(handler.elements, [(0, 0)]);
}

#[test]
fn a_simple_call_that_yields_starts_anew() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    handler.answer = Ok(Progress::Yield);
    assert_eq!(
        run(&mut memory, &mut handler, 1, 0x1000, 0x2000),
        Outcome::Continue(Control(1))
    );
    assert_eq!(memory.bytes(0x2000, 16), [0xEE; 16]);
}

#[test]
fn the_input_is_copied_once_and_the_output_written_only_on_success() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    let input: Vec<u8> = (0..24).collect();
    memory.fill(0x1100, &input);
    assert_eq!(status(&mut memory, &mut handler, 1, 0x1100, 0x2008), (0, 0));
    assert_eq!(handler.calls, [(Demo::Block, input, Vec::new())]);
    assert_eq!(memory.reads, 1);
    assert_eq!(memory.bytes(0x2008, 16), padded());
    assert_eq!(
        (memory.bytes(0x2000, 8), memory.bytes(0x2018, 8)),
        (&[0xEE; 8][..], &[0xEE; 8][..])
    );

    let mut memory = Memory::with_pages(&[1, 2]);
    handler.answer = Err(HvError::NOT_FOUND);
    assert_eq!(
        status(&mut memory, &mut handler, 1, 0x1100, 0x2008),
        (HvError::NOT_FOUND.0, 0)
    );
    assert_eq!(memory.bytes(0x2008, 16), [0xEE; 16]);
}

#[test]
fn an_output_shows_nothing_of_the_call_before() {
    let (mut memory, mut handler, mut scratch) =
        (Memory::with_pages(&[1, 2]), Recorder::new(), Scratch::new());
    let registers = Registers {
        control: Control(1),
        input: 0x1000,
        output: 0x2000,
    };
    for _ in 0..2 {
        // The handler looks at its output before it writes there.
        let none = Privileges::empty();
        let outcome = dispatch(
            &DEMO,
            none,
            &registers,
            &mut memory,
            || &mut scratch,
            &mut handler,
        );
        assert_eq!(outcome, Outcome::Complete(ResultWord(0)));
    }
}

#[test]
fn input_and_output_may_share_a_page() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    assert_eq!(status(&mut memory, &mut handler, 1, 0x1000, 0x1000), (0, 0));
    assert_eq!(
        memory.bytes(0x1000, 24),
        [&padded()[..], &[0xEE; 8]].concat()
    );
}

#[test]
fn a_page_without_access_is_an_intercept_and_the_handler_is_not_asked() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    memory.read_only.push(2);
    let no_access = |gpa, access| Outcome::NoAccess {
        gpa: Gpa::new(gpa),
        access,
    };
    assert_eq!(
        run(&mut memory, &mut handler, 1, 0x1000, 0x2000),
        no_access(0x2000, Access::Write)
    );
    assert_eq!(
        run(&mut memory, &mut handler, 1, 0x1000, 0x9010),
        no_access(0x9010, Access::Write)
    );
    assert_eq!(
        run(&mut memory, &mut handler, 1, 0x9000, 0x1000),
        no_access(0x9000, Access::Read)
    );
    assert_eq!(
        run(&mut memory, &mut handler, 1, !0xFFF, 0x1000),
        no_access(!0xFFF, Access::Read)
    );
    assert!(handler.calls.is_empty());
}

#[test]
fn fast_input_is_in_the_two_registers() {
    let (mut memory, mut handler) = (Memory::default(), Recorder::new());
    let (a, b) = (0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908);
    assert_eq!(
        status(&mut memory, &mut handler, 2 | Control::FAST, a, b),
        (0, 0)
    );
    assert_eq!(handler.calls, [(Demo::Fast, (0..16).collect(), Vec::new())]);
    assert_eq!(memory.reads, 0);
}

#[test]
fn the_variable_header_follows_the_fixed_one() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    memory.fill(0x1000, &(0..40).collect::<Vec<u8>>());
    assert_eq!(
        status(&mut memory, &mut handler, 4 | (3 * VARIABLE), 0x1000, 0),
        (0, 0)
    );
    assert_eq!(
        handler.calls,
        [(Demo::Variable, (0..16).collect(), (16..40).collect())]
    );
}

fn list(memory: &mut Memory, values: &[u64]) {
    for (at, value) in (0x1008u64..).step_by(8).zip(values) {
        memory.fill(at, &value.to_le_bytes());
    }
}

#[test]
fn a_failing_element_reports_those_before_it() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    list(&mut memory, &[1, 2, 13, 4]);
    let error = (HvError::INVALID_PARAMETER.0, 2);
    assert_eq!(
        status(&mut memory, &mut handler, 3 | (4 * REPS), 0x1000, 0x2000),
        error
    );
    assert_eq!(handler.elements, [(0, 1), (1, 2)]);
    assert_eq!(
        memory.bytes(0x2000, 12),
        [2, 0, 0, 0, 4, 0, 0, 0, 0xEE, 0xEE, 0xEE, 0xEE]
    );
}

#[test]
fn a_refusal_of_a_later_piece_still_reports_the_pieces_before() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    let control = 3 | (4 * REPS) | (3 * START);
    assert_eq!(
        status(&mut memory, &mut handler, control, 0x1001, 0),
        (HvError::INVALID_ALIGNMENT.0, 3)
    );
}

proptest! {
    #[test]
    fn a_sliced_rep_call_does_each_element_once(count in 1u16..500, slice in 1usize..40) {
        let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
        let values: Vec<u64> = (1000..).take(count.into()).collect();
        list(&mut memory, &values);
        handler.slice = slice;
        let mut control = 3 | (u64::from(count) * REPS);
        let done = loop {
            match run(&mut memory, &mut handler, control, 0x1000, 0x2000) {
                Outcome::Continue(next) => {
                    prop_assert!(next.rep_start() > Control(control).rep_start());
                    control = next.0;
                }
                Outcome::Complete(word) => {
                    prop_assert_eq!(word.status(), 0);
                    break word.reps_done();
                }
                other => panic!("{other:?}"),
            }
        };
        prop_assert_eq!(done, count);
        let expected: Vec<_> = (0u16..).zip(values.iter().copied()).collect();
        prop_assert_eq!(&handler.elements, &expected);
        for (at, value) in (0x2000u64..).step_by(4).zip(&values) {
            prop_assert_eq!(memory.bytes(at, 4), &(*value as u32).wrapping_mul(2).to_le_bytes()[..]);
        }
    }

    #[test]
    fn no_registers_panic_and_every_word_is_well_formed(
        code in prop_oneof![0u64..11, Just(0x8007), any::<u16>().prop_map(u64::from)],
        rest in prop_oneof![Just(0), Just(REPS), any::<u64>()],
        input in prop_oneof![0x1000u64..0x3000, any::<u64>()],
        output in prop_oneof![0x1000u64..0x3000, any::<u64>()],
    ) {
        let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
        handler.slice = 7;
        if let Outcome::Complete(word) = run(&mut memory, &mut handler, rest & !0xFFFF | code, input, output) {
            prop_assert_eq!(word.0 & !0x0000_0FFF_0000_FFFF, 0);
        }
        prop_assert!(memory.reads <= 1);
    }
}

#[test]
fn output_without_fixed_length_is_what_the_handler_wrote() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    handler.open = 24;
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0x2FE0), (0, 0));
    assert_eq!(memory.bytes(0x2FE0, 24), [0x5A; 24]);
    assert_eq!(memory.bytes(0x2FF8, 8), [0xEE; 8]);
    // to the end of the page and no further
    handler.open = 32;
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0x2FE0), (0, 0));
    handler.open = 33;
    let error = (HvError::INVALID_ALIGNMENT.0, 0);
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0x2FE0), error);
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0x2001), error);
    handler.open = 4096;
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0x2000), (0, 0));
    assert_eq!(memory.bytes(0x2000, 4096), [0x5A; 4096]);
}

#[test]
fn output_without_fixed_length_is_not_asked_for_where_there_is_none() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    assert_eq!(status(&mut memory, &mut handler, 9, 0x1000, 0), (0, 0));
    handler.open = 8;
    assert_eq!(
        run(&mut memory, &mut handler, 9, 0x1000, 0),
        Outcome::NoAccess {
            gpa: Gpa::new(0),
            access: Access::Write
        }
    );
    handler.answer = Err(HvError::NOT_FOUND);
    assert_eq!(
        status(&mut memory, &mut handler, 9, 0x1000, 0),
        (HvError::NOT_FOUND.0, 0)
    );
}

#[test]
fn the_list_begins_behind_the_variable_header() {
    let (mut memory, mut handler) = (Memory::with_pages(&[1]), Recorder::new());
    memory.fill(0x1000, &(0..40).collect::<Vec<u8>>());
    let control = 10 | (2 * VARIABLE) | (2 * REPS) | START;
    assert_eq!(
        status(&mut memory, &mut handler, control, 0x1000, 0),
        (0, 2)
    );
    assert_eq!(
        handler.calls,
        [(Demo::VariableList, (0..8).collect(), (8..24).collect())]
    );
    assert_eq!(handler.elements, [(1, 0x2726_2524_2322_2120)]);
}

#[test]
fn elements_can_be_taken_together() {
    let mut body = Body {
        header: &[],
        variable_header: &[],
        list: &[1, 2, 3, 4, 5, 6],
        output: &mut [],
        rep: RepSpec {
            input: 2,
            output: 0,
        },
        count: 3,
        done: 1,
        written: 0,
    };
    assert_eq!(
        (body.remaining(), body.remaining_input()),
        (2, &[3, 4, 5, 6][..])
    );
    body.complete(1);
    assert_eq!(body.element().map(|element| element.index), Some(2));
    body.complete(u16::MAX);
    assert_eq!((body.remaining(), body.remaining_input().len()), (0, 0));
    assert!(body.element().is_none());
}
