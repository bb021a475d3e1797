//! A guest's hypercalls: control word, blocks in memory or registers, all calls of the table, and sets of VPs.

use addr::Gpa;
use hypercall::{
    Body, CALLS, Call, FlushRequest, Handler, HypercallMemory, IpiRequest, NoAccess, Outcome,
    Progress, Registers, Scratch, VpSet, dispatch,
};
use arbitrary::Arbitrary;
use tlfs::{Control, HvError, Privileges};

use crate::target;

const PAGE: usize = 4096;
/// A guest that lets its calls be cut to pieces executes them again.
const PIECES: usize = 8;
/// VPs of the partition.
const VPS: u32 = 64;

#[derive(Arbitrary, Debug)]
struct Input {
    code: u8,
    /// The control word but for the code.
    control: u64,
    /// Count and start of reps instead of those of `control`.
    reps: Option<(u8, u8)>,
    privileges: u64,
    input: u16,
    output: u16,
    /// What both pages hold, over and over.
    memory: Vec<u8>,
    is_read_only: bool,
    /// What the handler does with one element after another, or with the call.
    acts: Vec<u8>,
}

/// Two pages at 0; a call may name more.
struct Memory {
    bytes: Vec<u8>,
    is_read_only: bool,
    written: usize,
}

impl Memory {
    fn page(&mut self, at: Gpa, len: usize) -> Result<&mut [u8], NoAccess> {
        let start = at.get() as usize;
        assert!(start % PAGE + len <= PAGE, "across a page");
        self.bytes.get_mut(start..start + len).ok_or(NoAccess)
    }
}

impl HypercallMemory for Memory {
    fn read(&mut self, from: Gpa, to: &mut [u8]) -> Result<(), NoAccess> {
        to.copy_from_slice(self.page(from, to.len())?);
        Ok(())
    }

    fn check_write(&mut self, at: Gpa) -> Result<(), NoAccess> {
        self.page(at, 0)?;
        if self.is_read_only || at.get() as usize >= self.bytes.len() {
            return Err(NoAccess);
        }
        Ok(())
    }

    fn write(&mut self, to: Gpa, from: &[u8]) -> Result<(), NoAccess> {
        self.check_write(to)?;
        self.page(to, from.len())?.copy_from_slice(from);
        self.written += from.len();
        Ok(())
    }
}

/// Checks what reaches it against the call's declaration.
struct Checker<'a> {
    acts: &'a mut dyn Iterator<Item = u8>,
    start: u16,
    calls: usize,
    done: u16,
    has_failed: bool,
}

impl Handler<Call> for Checker<'_> {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        self.calls += 1;
        let spec = CALLS.specs().iter().find(|spec| spec.kind == call);
        let spec = spec.expect("a call of the table");
        assert_eq!(body.header().len(), usize::from(spec.shape.input));
        assert!(spec.shape.variable_header || body.variable_header().is_empty());
        sets(body.header(), body.variable_header());
        let Some(rep) = spec.shape.rep else {
            return match self.acts.next() {
                Some(0..64) => self.failed(),
                Some(64..96) => Ok(Progress::Yield),
                Some(act) => {
                    let answer = [act; 16];
                    let room = usize::from(spec.shape.output).min(answer.len());
                    let result = body.write_output(&answer[..room]);
                    assert!(spec.shape.is_output_open || result.is_ok());
                    result.inspect_err(|_| self.has_failed = true)?;
                    Ok(Progress::Done)
                }
                None => Ok(Progress::Done),
            };
        };
        self.done = self.start;
        loop {
            let Some(mut element) = body.element() else {
                assert_eq!(body.remaining(), 0);
                return Ok(Progress::Done);
            };
            assert_eq!(element.index, self.done);
            assert_eq!(element.input.len(), usize::from(rep.input));
            assert_eq!(element.output.len(), usize::from(rep.output));
            assert!(element.output.iter().all(|byte| *byte == 0));
            match self.acts.next() {
                Some(0..16) => return self.failed(),
                Some(16..64) => return Ok(Progress::Yield),
                _ => {}
            }
            element.answer(&vec![0xA5; usize::from(rep.output)]);
            body.complete_element();
            self.done += 1;
        }
    }
}

impl Checker<'_> {
    fn failed(&mut self) -> Result<Progress, HvError> {
        self.has_failed = true;
        Err(HvError::INVALID_PARAMETER)
    }
}

/// The bytes as heads of all calls that name VPs: whatever they say, the walk is bounded and ascending.
fn sets(header: &[u8], variable_header: &[u8]) {
    let check = |vps: VpSet<'_>| {
        for count in [0, 1, VPS, 4096] {
            let list: Vec<u32> = vps.iter(count).map(|vp| vp.get()).collect();
            assert!(list.iter().all(|vp| *vp < count));
            assert!(list.is_sorted_by(|a, b| a < b));
            if let VpSet::Banks { valid, .. } = vps {
                assert!(list.iter().all(|vp| valid >> (vp / 64) & 1 != 0));
            }
        }
    };
    let _ = FlushRequest::plain(header).map(|request| check(request.vps));
    let _ = FlushRequest::extended(header, variable_header).map(|request| check(request.vps));
    let _ = IpiRequest::plain(header).map(|request| check(request.vps));
    let _ = IpiRequest::extended(header, variable_header).map(|request| {
        assert!(request.vector >= 16);
        check(request.vps);
    });
}

target!(|input: Input| {
    let specs = CALLS.specs();
    let spec = &specs[usize::from(input.code) % specs.len()];
    let mut control = Control(input.control & !0xFFFF | u64::from(spec.code.0));
    if let Some((count, start)) = input.reps {
        let reps = u64::from(count) << 32 | u64::from(start) << 48;
        control = Control(control.0 & 0x7FFF_FFFF | reps);
    }
    let pattern: &[u8] = if input.memory.is_empty() {
        &[0]
    } else {
        &input.memory
    };
    let mut memory = Memory {
        bytes: pattern.iter().copied().cycle().take(2 * PAGE).collect(),
        is_read_only: input.is_read_only,
        written: 0,
    };
    let mut scratch = Scratch::new();
    let mut acts = input.acts.iter().copied();
    for _ in 0..PIECES {
        let before = memory.bytes.clone();
        let privileges = Privileges::from_bits_retain(input.privileges);
        let mut handler = Checker {
            acts: &mut acts,
            start: control.rep_start(),
            calls: 0,
            done: 0,
            has_failed: false,
        };
        let registers = Registers {
            control,
            input: input.input.into(),
            output: input.output.into(),
        };
        let outcome = dispatch(
            &CALLS,
            privileges,
            &registers,
            &mut memory,
            || &mut scratch,
            &mut handler,
        );
        assert!(handler.calls <= 1);
        if handler.calls == 0 {
            assert_eq!(memory.bytes, before, "a refused call wrote");
        } else {
            assert!(privileges.contains(spec.privilege));
        }
        match outcome {
            Outcome::Complete(word) => {
                let is_good = word.status() == 0;
                assert!(handler.calls == 1 || !is_good, "success without a call");
                assert!(handler.calls == 0 || is_good != handler.has_failed);
                if handler.calls == 1 && spec.shape.rep.is_some() {
                    assert_eq!(word.reps_done(), handler.done);
                    assert!(!is_good || handler.done == control.rep_count());
                }
                return;
            }
            Outcome::Continue(next) => {
                assert_eq!(handler.calls, 1);
                assert_eq!(next.with_rep_start(0).0, control.with_rep_start(0).0);
                assert!(next.rep_start() >= control.rep_start());
                assert!(next.rep_start() == 0 || next.rep_start() < next.rep_count());
                control = next;
            }
            // A block that is checked before the call is refused before it.
            Outcome::NoAccess { .. } => {
                assert!(handler.calls == 0 || spec.shape.is_output_open);
                return;
            }
        }
    }
});
