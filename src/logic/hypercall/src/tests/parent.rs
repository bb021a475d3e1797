//! The real table, called as the parent calls it, and the registers of a call.

use super::*;

/// What the hypervisor's handler would be for a parent without children.
struct Parent {
    posted: Vec<u32>,
}

impl Handler<Call> for Parent {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        match call {
            Call::NotifyLongSpinWait => Ok(Progress::Done),
            Call::GetPartitionId => {
                body.write_output(&7u64.to_le_bytes())?;
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
            _ => Err(HvError::INVALID_PARTITION_ID),
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
        || std::boxed::Box::new(Scratch::new()),
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
    assert_eq!(call(0x1, 0x1100, 0), 2);
    assert_eq!(call(0x10041, 9, 0), 0xD);
    assert_eq!(call(0x99, 0x1100, 0), 6, "only children start VPs");
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
