//! Behaviour of the dispatcher, call by call.

use std::collections::BTreeMap;
use std::vec::Vec;

use addr::Gpa;
use proptest::prelude::*;
use tlfs::{CallCode, Control, HvError, Privileges, ResultWord};
use x86::{Gp, GpRegs, Segment, cr0, efer};

use crate::*;

/// Guest memory of a few pages. As strict as the real one: no access crosses a page.
#[derive(Default)]
struct Memory {
    pages: BTreeMap<u64, Vec<u8>>,
    read_only: Vec<u64>,
    reads: usize,
}

impl Memory {
    fn with_pages(pages: &[u64]) -> Self {
        Self {
            pages: pages.iter().map(|p| (*p, std::vec![0xEE; 4096])).collect(),
            ..Self::default()
        }
    }

    fn bytes(&self, gpa: u64, len: usize) -> &[u8] {
        &self.pages[&(gpa / 4096)][gpa as usize % 4096..][..len]
    }

    fn fill(&mut self, gpa: u64, bytes: &[u8]) {
        self.pages.get_mut(&(gpa / 4096)).unwrap()[gpa as usize % 4096..][..bytes.len()]
            .copy_from_slice(bytes);
    }
}

impl HypercallMemory for Memory {
    fn read(&mut self, from: Gpa, to: &mut [u8]) -> Result<(), NoAccess> {
        assert!(!to.is_empty() && from.page_offset() + to.len() <= 4096);
        self.reads += 1;
        let page = self.pages.get(&from.page().get()).ok_or(NoAccess)?;
        to.copy_from_slice(&page[from.page_offset()..][..to.len()]);
        Ok(())
    }

    fn check_write(&mut self, at: Gpa) -> Result<(), NoAccess> {
        let page = at.page().get();
        if self.pages.contains_key(&page) && !self.read_only.contains(&page) {
            Ok(())
        } else {
            Err(NoAccess)
        }
    }

    fn write(&mut self, to: Gpa, from: &[u8]) -> Result<(), NoAccess> {
        assert!(!from.is_empty() && to.page_offset() + from.len() <= 4096);
        self.check_write(to)?;
        self.fill(to.get(), from);
        Ok(())
    }
}

/// A table with one call of each form; the real one has no rep call yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demo {
    /// 24 bytes in, 16 out.
    Block,
    /// 16 bytes in, may be fast.
    Fast,
    /// Elements of 8 bytes in and 4 out after a header of 8.
    List,
    /// 16 bytes and a variable header.
    Variable,
    /// No parameters, privileged.
    Privileged,
    /// A rep call without lists.
    Count,
}

const fn demo(code: u16, kind: Demo, input: u16, output: u16) -> CallSpec<Demo> {
    CallSpec {
        code: CallCode(code),
        name: "demo",
        kind,
        input,
        output,
        rep: None,
        variable_header: false,
        fast: false,
        privilege: Privileges::empty(),
    }
}

static DEMO: Table<Demo> = Table::new(&[
    demo(1, Demo::Block, 24, 16),
    CallSpec {
        fast: true,
        ..demo(2, Demo::Fast, 16, 0)
    },
    CallSpec {
        rep: Some(RepSpec {
            input: 8,
            output: 4,
        }),
        ..demo(3, Demo::List, 8, 0)
    },
    CallSpec {
        variable_header: true,
        ..demo(4, Demo::Variable, 16, 0)
    },
    CallSpec {
        privilege: Privileges::CREATE_PARTITIONS,
        ..demo(5, Demo::Privileged, 0, 0)
    },
    CallSpec {
        rep: Some(RepSpec {
            input: 0,
            output: 0,
        }),
        ..demo(0x8007, Demo::Count, 16, 0)
    },
]);

/// Remembers what it was called with; elements whose value is 13 fail, and every `slice` elements it yields.
struct Recorder {
    calls: Vec<(Demo, Vec<u8>, Vec<u8>)>,
    elements: Vec<(u16, u64)>,
    slice: usize,
    answer: Result<Progress, HvError>,
}

impl Recorder {
    const fn new() -> Self {
        Self {
            calls: Vec::new(),
            elements: Vec::new(),
            slice: usize::MAX,
            answer: Ok(Progress::Done),
        }
    }
}

impl Handler<Demo> for Recorder {
    fn handle(&mut self, call: Demo, body: &mut Body<'_>) -> Result<Progress, HvError> {
        self.calls.push((
            call,
            body.header().to_vec(),
            body.variable_header().to_vec(),
        ));
        let mut left = self.slice;
        while let Some(element) = body.element() {
            let value = if element.input.is_empty() {
                0
            } else {
                u64::from_le_bytes(element.input.try_into().unwrap())
            };
            if value == 13 {
                return Err(HvError::INVALID_PARAMETER);
            }
            self.elements.push((element.index, value));
            if !element.output.is_empty() {
                assert_eq!(element.output, [0; 4]);
                element
                    .output
                    .copy_from_slice(&(value as u32).wrapping_mul(2).to_le_bytes());
            }
            body.complete_element();
            left -= 1;
            if left == 0 {
                return Ok(Progress::Yield);
            }
        }
        if call == Demo::Block {
            assert!(
                body.output().iter().all(|byte| *byte == 0),
                "output starts as zeros"
            );
            body.output().fill(0x5A);
        }
        self.answer
    }
}

fn run(
    memory: &mut Memory,
    handler: &mut Recorder,
    control: u64,
    input: u64,
    output: u64,
) -> Outcome {
    let registers = Registers {
        control: Control(control),
        input,
        output,
    };
    dispatch(
        &DEMO,
        Privileges::empty(),
        &registers,
        memory,
        &mut Scratch::new(),
        handler,
    )
}

/// As `run`, on calls that complete: the status and the count.
fn status(
    memory: &mut Memory,
    handler: &mut Recorder,
    control: u64,
    input: u64,
    output: u64,
) -> (u16, u16) {
    match run(memory, handler, control, input, output) {
        Outcome::Complete(word) => (word.status(), word.reps_done()),
        other => panic!("{other:?}"),
    }
}

/// The call is refused with `error`, before the handler and without a read.
fn refused(control: u64, input: u64, output: u64, error: HvError) {
    let (mut memory, mut handler) = (Memory::with_pages(&[1, 2]), Recorder::new());
    assert_eq!(
        status(&mut memory, &mut handler, control, input, output),
        (error.0, 0),
        "{control:#x}"
    );
    assert!(
        handler.calls.is_empty() && memory.reads == 0,
        "{control:#x}"
    );
}

const REPS: u64 = 1 << 32;
const START: u64 = 1 << 48;
const VARIABLE: u64 = 1 << 17;

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
        &mut Scratch::new(),
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
    assert_eq!(memory.bytes(0x2008, 16), [0x5A; 16]);
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
            &mut scratch,
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
        [&[0x5A; 16][..], &[0xEE; 8]].concat()
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
        code in prop_oneof![0u64..8, Just(0x8007), any::<u16>().prop_map(u64::from)],
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

/// What the hypervisor's handler would be for the parent of today.
struct Parent {
    posted: Vec<u32>,
}

impl Handler<Call> for Parent {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        match call {
            Call::NotifyLongSpinWait => Ok(Progress::Done),
            Call::GetPartitionId => {
                body.output().copy_from_slice(&7u64.to_le_bytes());
                Ok(Progress::Done)
            }
            Call::PostMessage => {
                self.posted
                    .push(tlfs::call::PostMessage::decode(body.header())?.connection.0);
                Err(HvError::INVALID_CONNECTION_ID)
            }
            Call::SignalEvent => {
                tlfs::call::SignalEvent::decode(body.header())?;
                Err(HvError::INVALID_CONNECTION_ID)
            }
            Call::ExtQueryCapabilities => Ok(Progress::Done),
        }
    }
}

fn parent_call(gp: &mut GpRegs, memory: &mut Memory) -> Rip {
    let identity = PartitionIdentity::parent(2, 40, true);
    let registers = Mode::Long.read(gp);
    let mut handler = Parent { posted: Vec::new() };
    let outcome = dispatch(
        &CALLS,
        identity.privileges,
        &registers,
        memory,
        &mut Scratch::new(),
        &mut handler,
    );
    Mode::Long.finish(gp, outcome)
}

#[test]
fn the_calls_that_linux_makes_at_boot_are_answered() {
    let mut memory = Memory::with_pages(&[1]);
    let mut call = |rcx, rdx, r8| {
        let mut gp = GpRegs([0x77; 16]);
        gp.set(Gp::Rcx, rcx);
        gp.set(Gp::Rdx, rdx);
        gp.set(Gp::R8, r8);
        let before = gp;
        assert_eq!(parent_call(&mut gp, &mut memory), Rip::Advance);
        let rax = gp.get(Gp::Rax);
        gp.set(Gp::Rax, 0x77);
        assert_eq!(gp, before, "only RAX changes");
        rax
    };
    assert_eq!(call(0x8001, 0, 0x1008), 0);
    assert_eq!(call(0x46, 0, 0x1000), 6, "the parent lacks the privilege");
    assert_eq!(call(0x1005D, 12, 0), 0x12);
    assert_eq!(call(0x10008, 5, 0), 0);
    assert_eq!(call(0x5C, 0x1100, 0), 5, "0xEE.. is no message");
    assert_eq!(
        call(0x1005C, 0x1100, 0),
        3,
        "256 bytes are not in registers"
    );
    assert_eq!(call(0x2, 0x1100, 0), 2);
    assert_eq!(memory.bytes(0x1008, 8), [0; 8]);
}

#[test]
fn the_real_table_finds_each_of_its_calls() {
    for spec in CALLS.specs() {
        assert_eq!(
            CALLS.lookup(spec.code).map(|found| found.kind),
            Some(spec.kind)
        );
    }
    let found = (0..=u16::MAX)
        .filter(|code| CALLS.lookup(CallCode(*code)).is_some())
        .count();
    assert_eq!(found, CALLS.specs().len());
}

#[test]
fn only_the_kernel_in_protected_mode_may_call() {
    let long = Segment {
        attributes: Segment::LONG,
        ..Segment::default()
    };
    let flat = Segment::default();
    assert_eq!(Mode::of(0, cr0::PE, efer::LMA, &long), Some(Mode::Long));
    assert_eq!(Mode::of(0, cr0::PE, efer::LMA, &flat), Some(Mode::Legacy));
    // The bit means something else outside long mode.
    assert_eq!(Mode::of(0, cr0::PE, 0, &long), Some(Mode::Legacy));
    assert_eq!(Mode::of(0, 0, 0, &flat), None);
    for cpl in 1..=3 {
        assert_eq!(Mode::of(cpl, cr0::PE, efer::LMA, &long), None);
    }
}

#[test]
fn a_32_bit_caller_uses_register_pairs() {
    let mut gp = GpRegs::default();
    // Upper halves are leftovers of 64-bit code and do not count.
    gp.set(Gp::Rdx, 0xAAAA_AAAA_0000_0001);
    gp.set(Gp::Rax, 0xAAAA_AAAA_0000_005C);
    gp.set(Gp::Rbx, 2);
    gp.set(Gp::Rcx, 0xAAAA_AAAA_0000_0003);
    gp.set(Gp::Rdi, 4);
    gp.set(Gp::Rsi, 0xAAAA_AAAA_0000_0005);
    let registers = Mode::Legacy.read(&gp);
    assert_eq!(registers.control, Control(0x0000_0001_0000_005C));
    assert_eq!(
        (registers.input, registers.output),
        (2 << 32 | 3, 4 << 32 | 5)
    );
    assert_eq!(
        Mode::Legacy.finish(&mut gp, Outcome::Complete(ResultWord(9 << 32 | 6))),
        Rip::Advance
    );
    assert_eq!((gp.get(Gp::Rdx), gp.get(Gp::Rax)), (9, 6));
    assert_eq!(
        Mode::Legacy.finish(&mut gp, Outcome::Continue(Control(7 << 32 | 8))),
        Rip::Stay
    );
    assert_eq!((gp.get(Gp::Rdx), gp.get(Gp::Rax)), (7, 8));
}

#[test]
fn a_call_to_be_continued_changes_rcx_only_and_one_without_access_nothing() {
    let mut gp = GpRegs([1; 16]);
    assert_eq!(
        Mode::Long.finish(&mut gp, Outcome::Continue(Control(99))),
        Rip::Stay
    );
    assert_eq!((gp.get(Gp::Rcx), gp.get(Gp::Rax)), (99, 1));
    let before = gp;
    let outcome = Outcome::NoAccess {
        gpa: Gpa::new(0),
        access: Access::Read,
    };
    assert_eq!(Mode::Long.finish(&mut gp, outcome), Rip::Stay);
    assert_eq!(gp, before);
}
