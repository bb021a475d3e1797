//! Physical interrupts while a virtual machine runs with IF clear.
//!
//! An entry of Bochs decides which events are masked when it loads the guest's flags (`VMenterLoadCheckGuestState`,
//! `SvmEnterLoadCheckGuestState`), before it notes that a guest runs (`in_vmx_guest = true`, `in_svm_guest = true`). A
//! guest that is entered with IF clear therefore holds physical interrupts back until it touches IF, where a processor
//! would leave the guest at once: the hypervisor cannot stop a guest that spins so, and two processors that wait for each
//! other wait for ever.
//!
//! `VMenterInjectEvents` or `SvmInjectEvents` is called next, also when there is nothing to inject. The decision is made
//! once more there. Under AMD-V that is not enough: for a guest with V_INTR_MASKING the decision leaves physical
//! interrupts as they are when the host's IF is set, so they are unmasked behind it.

use super::hook::{self, Prologue};

const INJECT_VMX: &std::ffi::CStr = c"_ZN8BX_CPU_C19VMenterInjectEventsEv";
const INJECT_SVM: &std::ffi::CStr = c"_ZN8BX_CPU_C15SvmInjectEventsEv";
const DECIDE: &std::ffi::CStr = c"_ZN8BX_CPU_C25handleInterruptMaskChangeEv";

/// How far into the decision the part about AMD-V may lie. The function is longer.
const SEARCHED: usize = 192;

/// ENDBR64; MOV R8D, [RDI + disp32]; TEST R8D, R8D.
const PROLOGUE_VMX: Prologue<14> = [
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

/// ENDBR64; SUB RSP, imm8; MOV RAX, [RDI + disp32].
const PROLOGUE_SVM: Prologue<15> = [
    Some(0xF3),
    Some(0x0F),
    Some(0x1E),
    Some(0xFA),
    Some(0x48),
    Some(0x83),
    Some(0xEC),
    None,
    Some(0x48),
    Some(0x8B),
    Some(0x87),
    None,
    None,
    None,
    None,
];

/// Places in `BX_CPU_C` and in what it keeps of a VMCB, as instructions encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    /// Events that are masked.
    event_mask: [u8; 4],
    /// The pointer to the rest.
    vmcb: [u8; 4],
    /// V_INTR_MASKING, a byte.
    intr_masking: [u8; 4],
    /// The byte of the host's flags that has IF in bit 1.
    host_if: [u8; 4],
}

/// Finds what the decision does for a guest of AMD-V with IF clear, as the compiler of the package writes it: MOV RDX,
/// [RDI + vmcb]; CMP byte [RDX + intr_masking], 0; JE; MOV ECX, EAX; OR CH, 0x1C; TEST byte [RDX + host_if], 2; CMOVE EAX,
/// ECX. Events of physical interrupts are bits 10 to 12 of the mask, which EAX has from [RDI + event_mask].
fn find_fields(code: &[u8]) -> Option<Fields> {
    let event_mask = code.windows(6).find_map(|window| match *window {
        [0x8B, 0x87, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    })?;
    code.windows(31).find_map(|window| match *window {
        [
            0x48,
            0x8B,
            0x97,
            a0,
            a1,
            a2,
            a3,
            0x80,
            0xBA,
            b0,
            b1,
            b2,
            b3,
            0,
            0x74,
            _,
            0x89,
            0xC1,
            0x80,
            0xCD,
            0x1C,
            0xF6,
            0x82,
            c0,
            c1,
            c2,
            c3,
            2,
            0x0F,
            0x44,
            0xC1,
        ] => Some(Fields {
            event_mask,
            vmcb: [a0, a1, a2, a3],
            intr_masking: [b0, b1, b2, b3],
            host_if: [c0, c1, c2, c3],
        }),
        _ => None,
    })
}

/// PUSH RDI; MOV RAX, `function`; CALL RAX; POP RDI. Both functions take the processor in RDI and nothing else.
fn call(function: u64) -> Vec<u8> {
    let mut code = vec![0x57, 0x48, 0xB8];
    code.extend(function.to_le_bytes());
    code.extend([0xFF, 0xD0, 0x5F]);
    code
}

/// MOV RAX, [RDI + vmcb]; CMP byte [RAX + intr_masking], 0; JE end; TEST byte [RAX + host_if], 2; JE end; AND dword
/// [RDI + event_mask], not the PIC's and the local APIC's.
fn unmask(fields: &Fields) -> Vec<u8> {
    const PHYSICAL: u32 = 1 << 10 | 1 << 11;
    let mut and = vec![0x81, 0xA7];
    and.extend(fields.event_mask);
    and.extend((!PHYSICAL).to_le_bytes());
    let mut test = vec![0xF6, 0x80];
    test.extend(fields.host_if);
    test.extend([2, 0x74, and.len() as u8]);
    test.extend(and);
    let mut code = vec![0x48, 0x8B, 0x87];
    code.extend(fields.vmcb);
    code.extend([0x80, 0xB8]);
    code.extend(fields.intr_masking);
    code.extend([0, 0x74, test.len() as u8]);
    code.extend(test);
    code
}

/// Repeats the decision once the guest runs.
pub(super) fn mend() {
    let Some(decide) = hook::symbol(DECIDE) else {
        return; // not Bochs
    };
    let again = call(decide as u64);
    let is_mended =
        hook::symbol(INJECT_VMX).is_none_or(|inject| hook::prepend(inject, &PROLOGUE_VMX, &again));
    // SAFETY: the function is code of the program, mapped readable, and longer than what is searched.
    let decision = unsafe { std::slice::from_raw_parts(decide.cast::<u8>(), SEARCHED) };
    let is_mended = is_mended
        & hook::symbol(INJECT_SVM).is_none_or(|inject| {
            find_fields(decision).is_some_and(|fields| {
                hook::prepend(inject, &PROLOGUE_SVM, &[again, unmask(&fields)].concat())
            })
        });
    if !is_mended {
        eprintln!("bochs_idiv: an unknown Bochs; interrupts may not end a virtual machine's run");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        event_mask: [0xE4, 0x91, 0, 0],
        vmcb: [0xD0, 0x91, 0, 0],
        intr_masking: [0x1B, 1, 0, 0],
        host_if: [0xB9, 0, 0, 0],
    };

    #[test]
    fn the_fields_are_found_where_the_compiler_put_them() {
        let code = [
            0x48, 0x83, 0xEC, 0x18, 0x8B, 0x87, 0xE4, 0x91, 0, 0, 0x48, 0x8B, 0x97, 0xD0, 0x91, 0,
            0, 0x80, 0xBA, 0x1B, 1, 0, 0, 0, 0x74, 0xD6, 0x89, 0xC1, 0x80, 0xCD, 0x1C, 0xF6, 0x82,
            0xB9, 0, 0, 0, 2, 0x0F, 0x44, 0xC1, 0xC3,
        ];
        assert_eq!(find_fields(&code), Some(FIELDS));
        assert_eq!(find_fields(&code[11..]), None);
    }

    #[test]
    fn the_call_keeps_the_processor() {
        let code = call(0x1122_3344_5566_7788);
        assert_eq!(code[..3], [0x57, 0x48, 0xB8]);
        assert_eq!(code[3..11], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!(code[11..], [0xFF, 0xD0, 0x5F]);
    }

    #[test]
    fn both_jumps_of_the_unmasking_lead_behind_it() {
        let code = unmask(&FIELDS);
        assert_eq!(
            code,
            [
                0x48, 0x8B, 0x87, 0xD0, 0x91, 0, 0, 0x80, 0xB8, 0x1B, 1, 0, 0, 0, 0x74, 19, 0xF6,
                0x80, 0xB9, 0, 0, 0, 2, 0x74, 10, 0x81, 0xA7, 0xE4, 0x91, 0, 0, 0xFF, 0xF3, 0xFF,
                0xFF
            ]
        );
        assert_eq!(16 + 19, code.len());
        assert_eq!(25 + 10, code.len());
    }
}
