//! MSRs of a child that the hypervisor does not know: #GP, or the parent.

use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::intercept::AccessType;
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, MessageType};

use super::skip;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::runtime::{self, Shared};
use crate::client::call;
use crate::group::{need, stopped, stopped_for};

extern "sysv64" fn read_an_msr(shared: &'static Shared) -> ! {
    let value = runtime::try_rdmsr(shared.arg(0) as u32);
    shared.set(0, value.is_some().into());
    shared.set(1, value.unwrap_or(0));
    shared.set(2, runtime::try_wrmsr(shared.arg(0) as u32, 0x77).into());
    runtime::stop(1)
}

/// Accesses to an unknown MSR with each action that the parent can ask for.
pub fn msrs(guest: &mut Guest) {
    // TIME_REF_COUNT, answered by the hypervisor.
    let registers = [(N::RCX, 0x4000_0020)];
    need(
        "msrs: start",
        guest.start(0, Mode::Long, code::rdmsr, &registers),
    );
    if stopped("msrs: the reference counter answers", guest.run(0)).is_some() {
        check(
            "msrs: with something",
            guest.reg(0, N::RAX) & 0xFFFF_FFFF != 0,
        );
    }
    const NOBODYS: u64 = 0x4242;
    need("msrs: start", guest.start_entry(0, read_an_msr, &[NOBODYS]));
    if stopped("msrs: one that there is not", guest.run(0)).is_some() {
        let shared = guest.shared(0);
        equal("msrs: RDMSR gives #GP", shared.result(0), 0);
        equal("msrs: WRMSR gives #GP", shared.result(2), 0);
    }
    let action = PropertyCode::UNIMPLEMENTED_MSR_ACTION;
    need("msrs: drop them", guest.set_property(action, 1));
    need("msrs: start", guest.start_entry(0, read_an_msr, &[NOBODYS]));
    if stopped("msrs: dropped", guest.run(0)).is_some() {
        let shared = guest.shared(0);
        equal("msrs: RDMSR is taken", shared.result(0), 1);
        equal("msrs: and gives 0", shared.result(1), 0);
        equal("msrs: WRMSR is taken", shared.result(2), 1);
    }
    let input = InstallIntercept {
        partition: guest.id,
        access: AccessMask::READ | AccessMask::WRITE,
        kind: InterceptType::Msr,
        parameter: 0,
    };
    need(
        "msrs: an intercept is installed",
        guest.feed(|_| call::simple(CallCode::INSTALL_INTERCEPT, &input.encode())),
    );
    let registers = [(N::RCX, NOBODYS.into()), (N::RAX, 0x11), (N::RDX, 0x22)];
    need(
        "msrs: start",
        guest.start(0, Mode::Long, code::wrmsr, &registers),
    );
    let stop = guest.run(0);
    if let Some(stop) = stopped_for("msrs: WRMSR stops", stop, MessageType::MSR_INTERCEPT) {
        let msr = stop.msr().unwrap_or_default();
        check(
            "msrs: number, value, kind",
            (u64::from(msr.msr), msr.rax, msr.rdx) == (NOBODYS, 0x11, 0x22)
                && msr.header.access == AccessType::Write,
        );
        equal("msrs: length", stop.length(), 2);
        stopped("msrs: passed over", skip(guest, 0, &stop, &[]));
    }
    let input = InstallIntercept {
        access: AccessMask::empty(),
        ..input
    };
    need(
        "msrs: and taken away",
        call::simple(CallCode::INSTALL_INTERCEPT, &input.encode()),
    );
    need("msrs: back to #GP", guest.set_property(action, 0));
}
