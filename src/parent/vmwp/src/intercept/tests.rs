//! Intercepts as the hypervisor makes them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use platform::{Interrupt, map};
use slots::SharedWords;
use tlfs::intercept::{AccessType, ExecutionState, MemoryAccess, PortAccess};
use uio::Mapping;
use x86::Segment;

use super::*;
use crate::console::Output;

fn devices() -> (Devices, Arc<Mutex<Vec<Interrupt>>>) {
    let raised: Arc<Mutex<Vec<Interrupt>>> = Arc::default();
    let sink = Arc::clone(&raised);
    let devices = Devices::new(
        1,
        Box::new(Output::default()),
        Box::new(move |interrupt| sink.lock().unwrap().push(interrupt)),
        Box::new(|| 0),
    );
    (devices, raised)
}

fn header(access: AccessType) -> InterceptHeader {
    InterceptHeader {
        length_and_cr8: 2,
        access,
        state: ExecutionState::PE | ExecutionState::LMA,
        cs: Segment {
            attributes: 0x209B | Segment::LONG,
            ..Segment::default()
        },
        rip: 0x1000,
        ..InterceptHeader::default()
    }
}

fn intercept(kind: MessageType, block: &[u8]) -> Intercept {
    let mut payload = [0; PAYLOAD_BYTES];
    payload[..block.len()].copy_from_slice(block);
    Intercept { kind, payload }
}

fn port(access: AccessType, port: u16, bytes: u8, rax: u64) -> Intercept {
    let access = IoPortIntercept {
        header: header(access),
        port,
        info: PortAccess::from_bits_retain(bytes),
        rax,
        ..IoPortIntercept::default()
    };
    intercept(MessageType::IO_PORT_INTERCEPT, &access.encode())
}

fn no_registers() -> Result<Registers, Infallible> {
    panic!("the message has all that is needed")
}

fn at_port(intercept: &Intercept) -> Answer {
    let Ok(answer) = answer(0, intercept, &mut devices().0, no_registers);
    answer
}

#[test]
fn ports_move_data_and_the_instruction_pointer() {
    let next = (RegisterName::RIP, 0x1002);
    let out = at_port(&port(AccessType::Write, map::COM1, 1, 0x41));
    assert_eq!(out, Answer::Go(vec![next]));
    // Nothing is at this port.
    let read = at_port(&port(AccessType::Read, 0xCF8, 4, 0x1111_2222_3333_4444));
    let rax = (RegisterName::RAX, 0xFFFF_FFFF);
    assert_eq!(read, Answer::Go(vec![next, rax]));
}

#[test]
fn power_and_reset_end_the_child() {
    let off = at_port(&port(AccessType::Write, map::PM1_CONTROL, 2, 1 << 13));
    assert_eq!(off, Answer::Stop(StopReason::PowerOff));
    let reset = at_port(&port(
        AccessType::Write,
        map::RESET,
        1,
        map::RESET_VALUE.into(),
    ));
    assert_eq!(reset, Answer::Stop(StopReason::Reset));
}

#[test]
fn what_cannot_be_carried_out_is_a_fault_of_the_child() {
    let string = PortAccess::STRING.bits() | 1;
    let outs = at_port(&port(AccessType::Write, map::COM1, string, 0));
    assert!(matches!(outs, Answer::Fault(text) if text.contains("string")));
    let msr = at_port(&intercept(MessageType::MSR_INTERCEPT, &[]));
    assert!(matches!(msr, Answer::Fault(_)));
    let [(name, event)] = Answer::fault()[..] else {
        panic!("one register");
    };
    assert_eq!(
        (name, event),
        (RegisterName::PENDING_EVENT_0, 13 << 16 | 1 << 8 | 1)
    );
}

#[test]
fn the_io_apic_is_written_and_read() {
    let (mut devices, _) = devices();
    let mut access = |gpa: u64, kind, bytes: &[u8], registers: Registers| {
        let mut block = MemoryIntercept {
            header: header(kind),
            instruction_count: bytes.len() as u8,
            info: MemoryAccess::GVA_VALID | MemoryAccess::GVA_GPA_VALID,
            gpa: addr::Gpa::new(gpa),
            ..MemoryIntercept::default()
        };
        block.instruction[..bytes.len()].copy_from_slice(bytes);
        let intercept = intercept(MessageType::UNMAPPED_GPA, &block.encode());
        let Ok(answer) = answer(0, &intercept, &mut devices, || {
            Ok::<_, Infallible>(registers)
        });
        answer
    };
    let mut registers = Registers {
        rip: 0x1000,
        ..Registers::default()
    };
    registers.gp.0[0] = 1;
    let next = (RegisterName::RIP, 0x1002);
    // mov [rdi], eax: the version register is selected.
    let written = access(map::IO_APIC, AccessType::Write, &[0x89, 0x07], registers);
    assert_eq!(written, Answer::Go(vec![next]));
    // mov eax, [rdi]
    let read = access(
        map::IO_APIC + 0x10,
        AccessType::Read,
        &[0x8B, 0x07],
        registers,
    );
    let rax = (RegisterName::RAX, 0x0017_0020);
    assert_eq!(read, Answer::Go(vec![rax, next]));
    // fld [rdi]
    let float = access(map::IO_APIC, AccessType::Read, &[0xD9, 0x07], registers);
    assert!(matches!(float, Answer::Fault(_)));
}

#[test]
fn ends_are_told_with_their_reason() {
    let fault = InterceptHeader {
        rip: 0x77,
        ..header(AccessType::Execute)
    };
    let triple = intercept(MessageType::UNRECOVERABLE_EXCEPTION, &fault.encode());
    let Ok(end) = answer(3, &triple, &mut devices().0, no_registers);
    assert_eq!(
        end,
        Answer::Stop(StopReason::TripleFault { vp: 3, rip: 0x77 })
    );
    for kind in [
        MessageType::GPA_INTERCEPT,
        MessageType::INVALID_VP_REGISTER,
        MessageType::UNSUPPORTED_FEATURE,
        MessageType(0x8000_00FF),
    ] {
        let end = at_port(&intercept(kind, &[]));
        assert!(
            matches!(end, Answer::Stop(StopReason::Failed { .. })),
            "{kind:?}"
        );
    }
}

#[test]
fn pages_are_read_as_the_hypervisor_fills_them() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let page = Words::new(Arc::new(Mapping::new(&file, 0, 4096).unwrap()), 0..512);
    assert_eq!(page_registers(&page), None);
    page.store(0, 1 | 1 << 16);
    page.store(1 + 7, 0xD1);
    page.store(0x88 / 8, 0x1234);
    page.store(0x90 / 8, 2);
    let registers = page_registers(&page).unwrap();
    assert_eq!(
        (registers.gp.0[7], registers.rip, registers.rflags),
        (0xD1, 0x1234, 2)
    );
    page.store(0, 0x8001_0004);
    page.store(2, 5 | 0x31 << 32);
    let message = Intercept::read(&page);
    assert_eq!(message.kind, MessageType::APIC_EOI);
    assert_eq!(ApicEoi::decode(&message.payload).unwrap().vector, 0x31);
}
