//! The guest's identity and the hypercall page.

pub use machine::page::Page;
use machine::verdict::{check, equal};
use machine::{insn, probe};

/// GUEST_OS_ID.
pub const GUEST_OS_ID: u32 = 0x4000_0000;
/// HYPERCALL.
pub const HYPERCALL: u32 = 0x4000_0001;
/// What Linux 7.3.4 writes to GUEST_OS_ID.
pub const LINUX: u64 = 0x8100_0007_0304_0000;

const ENABLE: u64 = 1;
const PATTERN: u64 = 0xA5A5_5A5A_C3C3_3C3C;

static FIRST: Page = Page::new();
static SECOND: Page = Page::new();

/// Whether this is an AMD processor, or one that says it works alike.
pub fn is_amd() -> bool {
    // "Auth" or "Hygo" in EBX.
    matches!(insn::cpuid(0, 0).ebx, 0x6874_7541 | 0x6F67_7948)
}

/// The bytes of VMCALL or VMMCALL and RET, as the low four bytes of a word.
pub fn call_bytes() -> u32 {
    u32::from_le_bytes(if is_amd() {
        [0x0F, 0x01, 0xD9, 0xC3]
    } else {
        [0x0F, 0x01, 0xC1, 0xC3]
    })
}

/// Whether CPUID names the interface and the MSRs answer.
pub fn offered() -> bool {
    insn::cpuid(0x4000_0001, 0).eax == 0x3123_7648 && probe::rdmsr(HYPERCALL).is_ok()
}

/// Sets the identity and enables the page; its address, or `None` where there is no such interface.
pub fn enable() -> Option<u64> {
    if !offered() {
        return None;
    }
    let address = FIRST.address();
    probe::wrmsr(GUEST_OS_ID, LINUX).ok()?;
    probe::wrmsr(HYPERCALL, address | ENABLE).ok()?;
    (insn::rdmsr(HYPERCALL) == address | ENABLE && FIRST.word(0) as u32 == call_bytes())
        .then_some(address)
}

/// Takes page and identity back.
pub fn disable() {
    insn::wrmsr(HYPERCALL, 0);
    insn::wrmsr(GUEST_OS_ID, 0);
}

/// The order of identity and page, the overlay, and what the page holds.
pub fn rules() {
    let (first, second) = (FIRST.address(), SECOND.address());
    disable();
    FIRST.fill(PATTERN);
    SECOND.fill(!PATTERN);

    check(
        "hypercall page: without an identity the write is taken",
        probe::wrmsr(HYPERCALL, first | ENABLE).is_ok(),
    );
    equal(
        "hypercall page: without an identity it does not enable",
        insn::rdmsr(HYPERCALL) & ENABLE,
        0,
    );
    check(
        "hypercall page: and memory is untouched",
        FIRST.is_filled_with(PATTERN),
    );

    insn::wrmsr(GUEST_OS_ID, LINUX);
    equal("GUEST_OS_ID reads back", insn::rdmsr(GUEST_OS_ID), LINUX);
    insn::wrmsr(HYPERCALL, first | ENABLE);
    equal(
        "hypercall page: MSR reads back",
        insn::rdmsr(HYPERCALL),
        first | ENABLE,
    );
    equal(
        "hypercall page: the vendor's call and RET",
        FIRST.word(0) & 0xFFFF_FFFF,
        call_bytes().into(),
    );
    check(
        "hypercall page: INT3 to the end",
        (4..4096).all(|offset| FIRST.byte(offset) == 0xCC),
    );

    // A fault and a lost write are both right: the guest must not change the page.
    let write = probe::write64(first, 0);
    check(
        "hypercall page: a write faults or is lost",
        FIRST.word(0) as u32 == call_bytes(),
    );
    machine::verdict::note(format_args!("a write to the page gives {write:x?}"));

    insn::wrmsr(HYPERCALL, second | ENABLE);
    check(
        "hypercall page: moving it gives the old memory back",
        FIRST.is_filled_with(PATTERN),
    );
    equal(
        "hypercall page: and covers the new",
        SECOND.word(0) & 0xFFFF_FFFF,
        call_bytes().into(),
    );
    insn::wrmsr(HYPERCALL, second);
    check(
        "hypercall page: disabling gives the memory back",
        SECOND.is_filled_with(!PATTERN),
    );
    equal(
        "hypercall page: the page number stays",
        insn::rdmsr(HYPERCALL),
        second,
    );

    insn::wrmsr(HYPERCALL, first | ENABLE);
    insn::wrmsr(GUEST_OS_ID, 0);
    check(
        "hypercall page: clearing the identity gives the memory back",
        FIRST.is_filled_with(PATTERN),
    );
    equal(
        "hypercall page: and disables",
        insn::rdmsr(HYPERCALL) & ENABLE,
        0,
    );
    check(
        "hypercall page: disabling it again is harmless",
        probe::wrmsr(HYPERCALL, 0).is_ok(),
    );

    insn::wrmsr(GUEST_OS_ID, LINUX);
    for bit in 1..12 {
        let result = probe::wrmsr(HYPERCALL, first | ENABLE | (1 << bit));
        check(
            format_args!("hypercall page: reserved bit {bit} gives #GP"),
            probe::is_gp(&result),
        );
    }
    disable();
}
