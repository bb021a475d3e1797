//! Intercepts that are installed: leaves of CPUID, and exceptions.

use addr::PartitionId;
use machine::platform::Platform;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::intercept::{ExceptionInfo, ExceptionIntercept};
use tlfs::register::{RegisterName as N, pending_event};
use tlfs::{CallCode, HvError, MessageType};

use super::run::skip;
use super::{destroy, need, refused, stopped, stopped_for};
use crate::child::code::{self, FAULT, Program};
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::call;
use crate::client::intercept::Intercept;
use crate::options::Options;

const RSI: N = N(N::RAX.0 + 6);
/// Beyond what the child's page tables map.
const UNMAPPED: u64 = 0x7F_0000_5000;
const NOT_CANONICAL: u64 = 0x8000_0000_0000;
const UD: u64 = 6;
const GP: u64 = 13;
const PF: u64 = 14;
/// Leaves that can be intercepted at a time.
const LEAVES: u32 = 32;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    let Some(mut guest) = need("intercepts: a child", Guest::new(1)) else {
        return;
    };
    wrong(&guest);
    cpuid(&mut guest);
    many_leaves(&guest);
    exceptions(&mut guest);
    page_fault(&mut guest);
    later(&mut guest);
    destroy("intercepts", guest);
}

fn install(
    id: PartitionId,
    kind: InterceptType,
    parameter: u64,
    access: AccessMask,
) -> Result<(), HvError> {
    let input = InstallIntercept {
        partition: id,
        access,
        kind,
        parameter,
    };
    call::simple(CallCode::INSTALL_INTERCEPT, &input.encode())
}

fn wanted(guest: &Guest, kind: InterceptType, parameter: u64) -> Result<(), HvError> {
    install(guest.id, kind, parameter, AccessMask::EXECUTE)
}

fn unwanted(guest: &Guest, kind: InterceptType, parameter: u64) -> Result<(), HvError> {
    install(guest.id, kind, parameter, AccessMask::empty())
}

fn wrong(guest: &Guest) {
    use InterceptType::{Cpuid, Exception};
    for (kind, parameter) in [
        (Cpuid, 1 << 32),
        (Exception, 2),
        (Exception, 15),
        (Exception, 18),
        (Exception, 32),
        (Exception, 1 << 32 | UD),
    ] {
        refused(
            format_args!("intercepts: {kind:?} {parameter:#x}"),
            wanted(guest, kind, parameter),
            HvError::INVALID_PARAMETER,
        );
    }
    for kind in [Cpuid, Exception] {
        refused(
            format_args!("intercepts: reads of {kind:?}"),
            install(guest.id, kind, UD, AccessMask::READ),
            HvError::INVALID_PARAMETER,
        );
    }
    for kind in [
        InterceptType::Hypercall,
        InterceptType::UnknownSynicConnection,
    ] {
        refused(
            format_args!("intercepts: {kind:?}"),
            wanted(guest, kind, 0),
            HvError::OPERATION_DENIED,
        );
    }
}

fn ask(guest: &mut Guest, leaf: u32) -> Option<Intercept> {
    let registers = [(N::RAX, leaf.into()), (N(N::RAX.0 + 1), 0)];
    need(
        "intercepts: start",
        guest.start(0, Mode::Long, code::cpuid, &registers),
    )?;
    guest.run(0)
}

fn cpuid(guest: &mut Guest) {
    const RBX: N = N(N::RAX.0 + 3);
    stopped("intercepts: CPUID as it is", ask(guest, 0));
    let [eax, ebx] = [N::RAX, RBX].map(|name| guest.reg(0, name));
    need("intercepts: leaf 0", wanted(guest, InterceptType::Cpuid, 0));
    need(
        "intercepts: leaf 0 once more",
        wanted(guest, InterceptType::Cpuid, 0),
    );
    // Twice: what was answered before is not remembered.
    for time in ["the first", "the second"] {
        let stop = stopped_for(
            format_args!("intercepts: CPUID stops {time} time"),
            ask(guest, 0),
            MessageType::CPUID_INTERCEPT,
        );
        let Some((stop, message)) = stop.and_then(|stop| Some((stop, stop.cpuid()?))) else {
            continue;
        };
        check(
            "intercepts: CPUID: what it would answer",
            (message.default_rax, message.default_rbx) == (eax, ebx),
        );
        check(
            "intercepts: CPUID: leaf and length",
            message.rax == 0 && stop.length() == 2,
        );
        let stop = skip(guest, 0, &stop, &[(RBX, 0x5EED)]);
        stopped("intercepts: CPUID goes on", stop);
        equal(
            "intercepts: CPUID answers what the parent says",
            guest.reg(0, RBX),
            0x5EED,
        );
    }
    stopped("intercepts: another leaf does not stop", ask(guest, 1));
    need(
        "intercepts: leaf 0 no longer",
        unwanted(guest, InterceptType::Cpuid, 0),
    );
    stopped("intercepts: CPUID does not stop", ask(guest, 0));
    equal(
        "intercepts: CPUID answers as before",
        guest.reg(0, RBX),
        ebx,
    );
}

fn many_leaves(guest: &Guest) {
    let failed = (0..LEAVES)
        .filter(|leaf| wanted(guest, InterceptType::Cpuid, (0x8000 + leaf).into()).is_err())
        .count();
    equal("intercepts: leaves that are refused", failed as u64, 0);
    refused(
        "intercepts: one leaf too many",
        wanted(guest, InterceptType::Cpuid, 0x9000),
        HvError::NO_RESOURCES,
    );
    let failed = (0..LEAVES)
        .filter(|leaf| unwanted(guest, InterceptType::Cpuid, (0x8000 + leaf).into()).is_err())
        .count();
    equal("intercepts: leaves that stay", failed as u64, 0);
}

/// Runs `program` to an exception.
fn to_exception(
    guest: &mut Guest,
    name: &str,
    program: Program,
    registers: &[(N, u128)],
) -> Option<(Intercept, ExceptionIntercept)> {
    need(
        "intercepts: start",
        guest.start(0, Mode::Long, program, registers),
    )?;
    let stop = stopped_for(
        format_args!("intercepts: {name} stops"),
        guest.run(0),
        MessageType::EXCEPTION_INTERCEPT,
    )?;
    Some((stop, stop.exception()?))
}

/// An exception: name, vector, what raises it with which registers, error code, length of the instruction.
type Case<'a> = (&'a str, u64, Program, &'a [(N, u128)], Option<u32>, u64);

fn exceptions(guest: &mut Guest) {
    let rsi = |value: u64| [(RSI, u128::from(value))];
    let msr = [(N(N::RAX.0 + 1), 0x1234_5678_u128)];
    let cases: [Case<'_>; 4] = [
        ("#DE", 0, code::divide, &[], None, 2),
        ("#UD", UD, code::undefined, &[], None, 2),
        ("#GP", GP, code::read_rsi, &rsi(NOT_CANONICAL), Some(0), 3),
        // One that the hypervisor raises: there is no such register.
        ("#GP of RDMSR", GP, code::rdmsr, &msr, Some(0), 2),
    ];
    for (name, vector, program, registers, code, length) in cases {
        need(
            format_args!("intercepts: {name}"),
            wanted(guest, InterceptType::Exception, vector),
        );
        if let Some((stop, message)) = to_exception(guest, name, program, registers) {
            equal(
                format_args!("intercepts: {name}: vector"),
                message.vector.into(),
                vector,
            );
            let has_code = message.info.contains(ExceptionInfo::HAS_ERROR_CODE);
            check(
                format_args!("intercepts: {name}: error code"),
                (has_code, message.error_code) == (code.is_some(), code.unwrap_or(0)),
            );
            equal(
                format_args!("intercepts: {name}: length"),
                stop.length(),
                length,
            );
            equal(
                format_args!("intercepts: {name}: RSI"),
                message.gp[6],
                guest.reg(0, RSI),
            );
            stopped(
                format_args!("intercepts: {name}: skipped, it goes on"),
                skip(guest, 0, &stop, &[]),
            );
        }
        need(
            format_args!("intercepts: {name} no longer"),
            unwanted(guest, InterceptType::Exception, vector),
        );
        need(
            "intercepts: start",
            guest.start(0, Mode::Long, program, registers),
        );
        let stop = guest.run(0);
        check(
            format_args!("intercepts: {name} is the child's own again"),
            stop.is_some_and(|stop| stop.is_out(FAULT)),
        );
    }
}

/// A page fault: its address is in the message, and in CR2 when the child gets it.
fn page_fault(guest: &mut Guest) {
    need(
        "intercepts: #PF",
        wanted(guest, InterceptType::Exception, PF),
    );
    need("intercepts: CR2", guest.set_one(0, N::CR2, 0x1111));
    let found = to_exception(guest, "#PF", code::write_rsi, &[(RSI, UNMAPPED.into())]);
    if let Some((_, message)) = found {
        equal("intercepts: #PF: address", message.parameter, UNMAPPED);
        equal("intercepts: #PF: error code", message.error_code.into(), 2);
        equal(
            "intercepts: #PF: CR2 is as before",
            guest.reg(0, N::CR2),
            0x1111,
        );
        let event = pending_event::PENDING
            | pending_event::EXCEPTION
            | pending_event::HAS_ERROR_CODE
            | u128::from(PF) << pending_event::VECTOR_SHIFT
            | u128::from(message.error_code) << pending_event::ERROR_CODE_SHIFT
            | u128::from(message.parameter) << pending_event::PARAMETER_SHIFT;
        need(
            "intercepts: #PF for the child",
            guest.set(0, &[(N::PENDING_EVENT_0, event)]),
        );
        let stop = guest.run(0);
        let port = stop.and_then(|stop| stop.port());
        check(
            "intercepts: #PF: the child's handler has it",
            port.is_some_and(|port| port.port == FAULT && port.rdi == UNMAPPED && port.rcx == 2),
        );
    }
    need(
        "intercepts: #PF no longer",
        unwanted(guest, InterceptType::Exception, PF),
    );
}

/// A VP that runs when the intercept is installed, and one that is made after that.
fn later(guest: &mut Guest) {
    need(
        "intercepts: start",
        guest.start(
            0,
            Mode::Long,
            code::undefined_later,
            &[(RSI, layout::DATA.into())],
        ),
    );
    guest.write(layout::DATA, 0);
    need("intercepts: it runs", guest.resume(0));
    need(
        "intercepts: #UD, of a VP that runs",
        wanted(guest, InterceptType::Exception, UD),
    );
    guest.write(layout::DATA, 1);
    stopped_for(
        "intercepts: a VP that ran stops",
        guest.stop_within(0, crate::client::vp::PATIENCE),
        MessageType::EXCEPTION_INTERCEPT,
    );
    need("intercepts: a new VP", guest.create_vp(1));
    guest.shared(1).prepare(1);
    need(
        "intercepts: a new VP starts",
        guest.start(1, Mode::Long, code::undefined, &[]),
    );
    need(
        "intercepts: a new VP waits for nothing",
        guest.set_one(1, N::INTERNAL_ACTIVITY_STATE, 0),
    );
    stopped_for(
        "intercepts: a new VP stops",
        guest.run(1),
        MessageType::EXCEPTION_INTERCEPT,
    );
}
