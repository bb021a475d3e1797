//! The page of the local APICs: whatever the parent declares there, a child finds its APIC.

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::HvError;
use tlfs::call::*;

use crate::arena::{self, CHUNK};
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::partition::RWX;
use crate::group::{need, refused, stopped};

const PAGE: u64 = 0xFEE0_0000;
const SVR: u64 = PAGE + 0xF0;

/// Writes argument 0 to the register of the spurious vector; results are the version and what it reads back.
extern "sysv64" fn use_apic(shared: &'static Shared) -> ! {
    runtime::write32(SVR, shared.arg(0) as u32);
    shared.set(0, insn::read_mmio32(PAGE + 0x30).into());
    shared.set(1, insn::read_mmio32(SVR).into());
    runtime::stop(0)
}

fn finds_apic(guest: &mut Guest, when: &str, svr: u64) {
    need("hole: start", guest.start_entry(0, use_apic, &[svr]));
    if stopped(format_args!("hole: {when}: it runs"), guest.run(0)).is_some() {
        let shared = guest.shared(0);
        check(
            format_args!("hole: {when}: the APIC's version"),
            shared.result(0) & 0xF0 == 0x10,
        );
        equal(
            format_args!("hole: {when}: its register"),
            shared.result(1),
            svr,
        );
    }
}

/// Maps over it, declares it without access, unmaps it.
pub fn hole(guest: &mut Guest) {
    let chunk = arena::chunk();
    finds_apic(guest, "at first", 0x1F1);
    let reply = guest.map_once(PAGE, &[chunk], RWX);
    refused("hole: a page", reply.status, HvError::INVALID_PARAMETER);
    let around = PAGE & !(CHUNK - 1);
    let reply = guest.map_once(around, &[chunk], RWX | MapFlags::LARGE);
    refused(
        "hole: a large page",
        reply.status,
        HvError::INVALID_PARAMETER,
    );
    need("hole: no access", guest.map_no_access(PAGE, 1));
    finds_apic(guest, "without access", 0x1F2);
    need(
        "hole: no access around it",
        guest.map_no_access(around, 512),
    );
    finds_apic(guest, "without access around it", 0x1F3);
    need("hole: unmapped", guest.unmap(around, 512));
    finds_apic(guest, "unmapped", 0x1FF);
    arena::free_chunk(chunk);
}
