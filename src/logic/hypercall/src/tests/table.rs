//! The real table: forms and privileges of its calls.

use proptest::prelude::*;

use super::*;

/// Takes every element and writes nothing; remembers the last call.
struct Taker(Option<Call>);

impl Handler<Call> for Taker {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        self.0 = Some(call);
        body.complete(u16::MAX);
        Ok(Progress::Done)
    }
}

fn call(
    privileges: Privileges,
    control: u64,
    input: u64,
    output: u64,
) -> (Option<Call>, Outcome, Memory) {
    let (mut memory, mut taker) = (Memory::with_pages(&[1, 2]), Taker(None));
    let registers = Registers {
        control: Control(control),
        input,
        output,
    };
    let mut scratch = Scratch::new();
    let outcome = dispatch(
        &CALLS,
        privileges,
        &registers,
        &mut memory,
        || &mut scratch,
        &mut taker,
    );
    (taker.0, outcome, memory)
}

/// The plain control word of a call: one element where it takes elements.
fn plain(spec: &CallSpec<Call>) -> u64 {
    u64::from(spec.code.0) | if spec.shape.rep.is_some() { REPS } else { 0 }
}

#[test]
fn each_call_reaches_its_handler_and_returns_its_count() {
    for spec in CALLS.specs() {
        let (reached, outcome, _) = call(Privileges::all(), plain(spec), 0x1000, 0x2000);
        let count = u64::from(spec.shape.rep.is_some());
        assert_eq!(reached, Some(spec.kind), "{}", spec.name);
        assert_eq!(
            outcome,
            Outcome::Complete(ResultWord(count << 32)),
            "{}",
            spec.name
        );
    }
}

#[test]
fn each_privilege_of_a_call_is_needed() {
    for spec in CALLS.specs() {
        for privilege in spec.privilege.iter() {
            let rest = Privileges::all().difference(privilege);
            let (reached, outcome, _) = call(rest, plain(spec), 0x1000, 0x2000);
            let denied = ResultWord::new(Err(HvError::ACCESS_DENIED), 0);
            assert_eq!(
                (reached, outcome),
                (None, Outcome::Complete(denied)),
                "{}",
                spec.name
            );
        }
    }
}

#[test]
fn a_child_may_flush_and_send_and_nothing_of_the_hosts() {
    let all = tlfs::SyntheticFeatures::all();
    let child = PartitionIdentity::child(all, 2, 4, 48, true).privileges;
    let own: Vec<_> = CALLS
        .specs()
        .iter()
        .filter(|spec| child.contains(spec.privilege))
        .map(|spec| spec.code.0)
        .collect();
    assert_eq!(
        own,
        [
            0x02, 0x03, 0x08, 0x0B, 0x13, 0x14, 0x15, 0x5C, 0x5D, 0x99, 0x9A
        ]
    );
    let parent = PartitionIdentity::parent(4, 48, true).privileges;
    let denied: Vec<_> = CALLS
        .specs()
        .iter()
        .filter(|spec| !parent.contains(spec.privilege))
        .map(|spec| spec.code.0)
        .collect();
    assert_eq!(denied, [0x46, 0x99, 0x9A]);
}

#[test]
fn the_forms_that_linux_uses_are_there() {
    let reaches =
        |control, input, output| call(Privileges::all(), control, input, output).0.is_some();
    for fast in [
        0x41, 0x42, 0x43, 0x4F, 0x56, 0x58, 0x5B, 0x5D, 0x8B, 0x0B, 0x08,
    ] {
        assert!(reaches(fast | Control::FAST, 7, 7), "fast {fast:#x}");
    }
    for fast in [0x40, 0x44, 0x47, 0x52, 0x94, 0xE1, 0xE3, 0x101, 0x02, 0x15] {
        assert!(!reaches(fast | Control::FAST, 7, 7), "fast {fast:#x}");
    }
    // As many elements as Linux puts into a page, and not one more.
    for (code, most) in [
        (0x48, 511),
        (0x49, 512),
        (0x4B, 509),
        (0x50, 256),
        (0x51, 127),
        (0xC9, 4095),
    ] {
        assert!(reaches(code | (most * REPS), 0x1000, 0x2000), "{code:#x}");
        if most < 4095 {
            assert!(
                !reaches(code | ((most + 1) * REPS), 0x1000, 0x2000),
                "{code:#x}"
            );
        }
    }
    assert!(reaches(0x4C | (4095 * REPS), 0x1000, 0), "no list");
    assert!(!reaches(0x13 | REPS, 0x1000, 0), "no rep call");
    assert!(reaches(0x13 | VARIABLE, 0x1000, 0) && reaches(0x14 | VARIABLE | REPS, 0x1000, 0));
    assert!(reaches(0x15, 0x1000, 0) && reaches(0xE4 | (25 * VARIABLE), 0x1000, 0));
    assert!(!reaches(0x02 | VARIABLE, 0x1000, 0));
}

#[test]
fn a_long_spin_wait_touches_no_memory() {
    let (reached, outcome, memory) = call(Privileges::empty(), 0x8, 0x9000, 0x9000);
    assert_eq!(reached, Some(Call::NotifyLongSpinWait));
    assert_eq!(
        (outcome, memory.reads),
        (Outcome::Complete(ResultWord(0)), 0)
    );
}

proptest! {
    #[test]
    fn no_registers_panic_on_the_real_table(
        code in prop_oneof![3 => 0u64..0x140, 1 => Just(0x8001u64)],
        rest in prop_oneof![Just(0), Just(REPS), 0u64..0x400, any::<u64>()],
        input in prop_oneof![0x1000u64..0x3000, any::<u64>()],
        output in prop_oneof![0x1000u64..0x3000, any::<u64>()],
    ) {
        let control = rest & !0xFFFF | (rest & 0x3FF) << 17 | code;
        let (_, outcome, memory) = call(Privileges::all(), control, input, output);
        if let Outcome::Complete(word) = outcome {
            prop_assert_eq!(word.0 & !0x0000_0FFF_0000_FFFF, 0);
        }
        prop_assert!(memory.reads <= 1);
    }
}
