//! Physical interrupts while a virtual machine runs with IF clear.
//!
//! An entry of Bochs decides which events are masked before it notes that a guest runs (`VMenterLoadCheckGuestState`,
//! then `in_vmx_guest = true`). A guest that is entered with IF clear therefore holds physical interrupts back until it
//! touches IF, where a processor would leave the guest at once: the hypervisor cannot stop a guest that spins so, and
//! two processors that wait for each other wait for ever.
//!
//! `VMenterInjectEvents` is called next, also when there is nothing to inject. The decision is made once more there.

use super::hook::{self, Prologue};

const INJECT: &std::ffi::CStr = c"_ZN8BX_CPU_C19VMenterInjectEventsEv";
const DECIDE: &std::ffi::CStr = c"_ZN8BX_CPU_C25handleInterruptMaskChangeEv";

/// ENDBR64; MOV R8D, [RDI + disp32]; TEST R8D, R8D.
const PROLOGUE: Prologue = [
    Some(0xF3),
    Some(0x0F),
    Some(0x1E),
    Some(0xFA),
    Some(0x44),
    Some(0x8B),
    Some(0x87),
    None,
    None,
    None,
    None,
    Some(0x45),
    Some(0x85),
    Some(0xC0),
];

/// PUSH RDI; MOV RAX, `function`; CALL RAX; POP RDI. Both functions take the processor in RDI and nothing else.
fn call(function: u64) -> Vec<u8> {
    let mut code = vec![0x57, 0x48, 0xB8];
    code.extend(function.to_le_bytes());
    code.extend([0xFF, 0xD0, 0x5F]);
    code
}

/// Repeats the decision once the guest runs.
pub(super) fn mend() {
    let (Some(inject), Some(decide)) = (hook::symbol(INJECT), hook::symbol(DECIDE)) else {
        return; // not Bochs, or one without VT-x
    };
    if !hook::prepend(inject, &PROLOGUE, &call(decide as u64)) {
        eprintln!("bochs_idiv: an unknown Bochs; interrupts may not end a virtual machine's run");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_keeps_the_processor() {
        let code = call(0x1122_3344_5566_7788);
        assert_eq!(code[..3], [0x57, 0x48, 0xB8]);
        assert_eq!(code[3..11], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!(code[11..], [0xFF, 0xD0, 0x5F]);
    }
}
