//! Behaviour of the dispatcher: a table with one call of each form, and fakes for memory and handler.

mod buffers;
mod parent;
mod refusals;
mod sparse;
mod table;
mod transfer;

use std::collections::BTreeMap;
use std::vec::Vec;

use addr::Gpa;
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

/// A table with one call of each form.
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
    /// 8 bytes in, up to a page out.
    Open,
    /// A rep call with a variable header.
    VariableList,
}

const fn demo(code: u16, kind: Demo, shape: Shape) -> CallSpec<Demo> {
    CallSpec {
        code: CallCode(code),
        name: "demo",
        kind,
        shape,
        privilege: Privileges::empty(),
    }
}

static DEMO: Table<Demo> = Table::new(&[
    demo(1, Demo::Block, Shape::simple(24, 16)),
    demo(2, Demo::Fast, Shape::simple(16, 0)),
    demo(3, Demo::List, Shape::rep(8, 8, 4)),
    demo(4, Demo::Variable, Shape::simple(16, 0).variable()),
    CallSpec {
        privilege: Privileges::CREATE_PARTITIONS,
        ..demo(5, Demo::Privileged, Shape::simple(0, 0))
    },
    demo(0x8007, Demo::Count, Shape::rep(16, 0, 0)),
    demo(9, Demo::Open, Shape::simple(8, 0).up_to(4096)),
    demo(10, Demo::VariableList, Shape::rep(8, 8, 0).variable()),
]);

/// Remembers what it was called with; elements whose value is 13 fail, and every `slice` elements it yields.
struct Recorder {
    calls: Vec<(Demo, Vec<u8>, Vec<u8>)>,
    elements: Vec<(u16, u64)>,
    slice: usize,
    open: usize,
    answer: Result<Progress, HvError>,
}

impl Recorder {
    const fn new() -> Self {
        Self {
            calls: Vec::new(),
            elements: Vec::new(),
            slice: usize::MAX,
            open: 0,
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
        while let Some(mut element) = body.element() {
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
                let doubled = (value as u32).wrapping_mul(2);
                element.answer(&doubled.to_le_bytes());
            }
            body.complete_element();
            left -= 1;
            if left == 0 {
                return Ok(Progress::Yield);
            }
        }
        if call == Demo::Block {
            assert!(
                body.output.iter().all(|byte| *byte == 0),
                "output starts as zeros"
            );
            body.write_output(&[0x5A; 15])?;
        }
        if call == Demo::Open {
            body.write_output(std::vec![0x5A; self.open].as_slice())?;
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
        || std::boxed::Box::new(Scratch::new()),
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
