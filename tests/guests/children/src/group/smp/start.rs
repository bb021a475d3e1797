//! Second VPs: by INIT and SIPI, and by the call.

use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::{CallCode, Control};
use x86::Segment;

use super::{send, to_x2apic};
use crate::child::code;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need, stopped};

/// Where the start-up IPI of the test leads.
const START_PAGE: u64 = 0x1_2000;
/// Results of VP 0 that the parent reads.
pub const DONE: u64 = 0x600D;

extern "sysv64" fn start_others(shared: &'static Shared) -> ! {
    let x2apic = shared.arg(0) == 1;
    if x2apic {
        to_x2apic();
    } else {
        runtime::write32(0xFEE0_00F0, 0x1FF);
    }
    send(x2apic, 1, 0xC500);
    send(x2apic, 1, 0x8500);
    send(x2apic, 1, 0x600 | START_PAGE >> 12);
    send(x2apic, 1, 0x600 | START_PAGE >> 12);
    shared.set(0, DONE);
    runtime::stop(0)
}

/// VP 1 waits for SIPI and begins at its page.
pub fn start_up(name: &str, x2apic: u64) {
    let Some(mut guest) = need(
        format_args!("start, {name}: a child of two VPs"),
        Guest::new(2),
    ) else {
        return;
    };
    guest.load_at(START_PAGE, code::out_16);
    // VP 1 is let go first, and must not run before it is started.
    need("start: VP 1 is let go", guest.resume(1));
    check(
        format_args!("start, {name}: VP 1 waits"),
        guest.stop_within(1, 20_000).is_none(),
    );
    need("start: VP 0", guest.start_entry(0, start_others, &[x2apic]));
    need("start: VP 0 is let go", guest.resume(0));
    let stop = guest.stop_within(1, PATIENCE);
    if let Some(stop) = stopped(format_args!("start, {name}: VP 1 runs"), stop) {
        let cs = stop.header().cs;
        check(
            format_args!("start, {name}: at the page of the SIPI"),
            cs.base == START_PAGE
                && u64::from(cs.selector) == START_PAGE >> 4
                && stop.header().rip == 2,
        );
    }
    stopped(
        format_args!("start, {name}: VP 0 ends"),
        guest.stop_within(0, PATIENCE),
    );
    destroy(format_args!("start, {name}"), guest);
}

fn segment(selector: u16, attributes: u16) -> Segment {
    Segment {
        base: 0,
        limit: u32::MAX,
        selector,
        attributes,
    }
}

extern "sysv64" fn start_by_call_entry(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    // The parent left the block in the input page.
    let control = Control::simple(CallCode::START_VIRTUAL_PROCESSOR).0;
    shared.set(0, runtime::call_page(control, layout::CALL_INPUT, 0));
    shared.set(1, runtime::call_page(control, layout::CALL_INPUT, 0));
    let header = VpIndexFromApicId {
        partition: PARTITION_SELF,
        ..VpIndexFromApicId::default()
    };
    for (n, piece) in header.encode().chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        runtime::write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    runtime::write(layout::CALL_INPUT + 16, 1 << 32);
    let control = Control::simple(CallCode::GET_VP_INDEX_FROM_APIC_ID).0 | 2 << 32;
    shared.set(
        2,
        runtime::call_page(control, layout::CALL_INPUT, layout::CALL_OUTPUT),
    );
    shared.set(3, runtime::read(layout::CALL_OUTPUT));
    runtime::stop(0)
}

extern "sysv64" fn started(shared: &'static Shared) -> ! {
    shared.set(0, DONE);
    shared.set(1, runtime::rdmsr(0x4000_0002));
    runtime::stop(1)
}

/// VP 1 begins with the registers of the call.
pub fn start_by_call() {
    let Some(mut guest) = need("start by call: a child of two VPs", Guest::new(2)) else {
        return;
    };
    let table = |base, limit| x86::TableRegister { base, limit };
    let data = segment(layout::DATA_32, 0xC093);
    let mut gs = data;
    gs.base = layout::SHARED + 0x1000;
    // RDI is 0 at the start, so the entry finds its page through the first instruction of a small program.
    let context = InitialContext {
        rip: layout::CODE + 0x1000,
        rsp: layout::STACKS + 2 * layout::STACK - 8,
        rflags: 2,
        cs: segment(layout::CODE_64, 0xA09B),
        ds: data,
        es: data,
        fs: data,
        gs,
        ss: data,
        tr: Segment {
            base: 0,
            limit: 0xFFFF,
            selector: 0,
            attributes: 0x8B,
        },
        ldtr: Segment {
            base: 0,
            limit: 0xFFFF,
            selector: 0,
            attributes: 0x82,
        },
        idtr: table(layout::IDT, 4095),
        gdtr: table(layout::GDT, 31),
        efer: 0x500,
        cr0: 0x8000_0031,
        cr3: layout::PML4,
        cr4: 0x620,
        pat: 0x0007_0406_0007_0406,
    };
    let block = StartVp {
        partition: PARTITION_SELF,
        vp: addr::VpIndex::new(1),
        context,
        ..StartVp::default()
    };
    need(
        "start by call: VP 0",
        guest.start_entry(0, start_by_call_entry, &[]),
    );
    for (n, piece) in block.encode().chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        guest.write(layout::CALL_INPUT + n as u64 * 8, word);
    }
    // mov rdi, gs:[40]; mov rax, entry; jmp rax
    let entry = (started as *const () as u64).to_le_bytes();
    let mut bytes = [0x90_u8; 24];
    bytes[..9].copy_from_slice(&[0x65, 0x48, 0x8B, 0x3C, 0x25, 0x28, 0, 0, 0]);
    bytes[9..11].copy_from_slice(&[0x48, 0xB8]);
    bytes[11..19].copy_from_slice(&entry);
    bytes[19..21].copy_from_slice(&[0xFF, 0xE0]);
    for (n, piece) in bytes.chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
        guest.write(layout::CODE + 0x1000 + n as u64 * 8, word);
    }
    need("start by call: VP 1 is let go", guest.resume(1));
    let stop = guest.run(0);
    stopped("start by call: VP 0 ends", stop);
    let stop = guest.stop_within(1, PATIENCE);
    stopped("start by call: VP 1 runs", stop);
    let (first, second) = (guest.shared(0), guest.shared(1));
    equal("start by call: status", first.result(0) & 0xFFFF, 0);
    check("start by call: not twice", first.result(1) & 0xFFFF != 0);
    note(format_args!("the second time {:#x}", first.result(1)));
    equal("start by call: VP 1 is there", second.result(0), DONE);
    equal("start by call: and knows its index", second.result(1), 1);
    equal(
        "start by call: indexes from APIC ids",
        first.result(2),
        2 << 32,
    );
    equal("start by call: are 0 and 1", first.result(3), 1 << 32);
    destroy("start by call", guest);
}
