//! Virtual machines on a Bochs with more than one processor.
//!
//! With one processor, Bochs' loop (`BX_CPU_C::cpu_loop`) notes the address of the next instruction when a guest's
//! exception has been delivered: `prev_rip = RIP`. The loop for several processors (`main.cc`, with
//! `BX_CPU_C::cpu_run_trace`) does not. When the next thing on that processor is an exit for a physical interrupt, the
//! exit stores `prev_rip`: the guest goes on at the instruction that faulted, with the stack and the privilege of the
//! handler that never ran, and Linux dies of a page fault at an address of user space.
//!
//! Both functions are dynamic symbols. The one is searched for the offsets of the fields, and a few instructions that do
//! what it does are put in front of the other. Where either looks otherwise than expected, nothing is changed.

use std::ffi::CStr;

use super::hook::{self, Prologue};

const LOOP: &CStr = c"_ZN8BX_CPU_C8cpu_loopEv";
const TRACE: &CStr = c"_ZN8BX_CPU_C13cpu_run_traceEv";

/// How far into `cpu_loop` the assignments may lie. The function is longer.
const SEARCHED: usize = 192;

/// ENDBR64; SUB RSP, imm8; MOV EAX, [RDI + disp32].
const PROLOGUE: Prologue<14> = [
    Some(0xF3),
    Some(0x0F),
    Some(0x1E),
    Some(0xFA),
    Some(0x48),
    Some(0x83),
    Some(0xEC),
    None,
    Some(0x8B),
    Some(0x87),
    None,
    None,
    None,
    None,
];

/// Places of the fields in `BX_CPU_C`, as instructions encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    rip: [u8; 4],
    speculative_rsp: [u8; 4],
    prev_rip: [u8; 4],
}

/// Finds `prev_rip = RIP; speculative_rsp = false` as the compiler of the package writes it: MOV RAX, [RDX + rip];
/// MOV byte [RDX + speculative_rsp], 0; MOV [RDX + prev_rip], RAX.
fn find_fields(code: &[u8]) -> Option<Fields> {
    code.windows(21).find_map(|window| match *window {
        [
            0x48,
            0x8B,
            0x82,
            a0,
            a1,
            a2,
            a3,
            0xC6,
            0x82,
            b0,
            b1,
            b2,
            b3,
            0,
            0x48,
            0x89,
            0x82,
            c0,
            c1,
            c2,
            c3,
        ] => Some(Fields {
            rip: [a0, a1, a2, a3],
            speculative_rsp: [b0, b1, b2, b3],
            prev_rip: [c0, c1, c2, c3],
        }),
        _ => None,
    })
}

/// MOV RAX, [RDI + rip]; MOV [RDI + prev_rip], RAX; MOV byte [RDI + speculative_rsp], 0.
fn assignments(fields: &Fields) -> Vec<u8> {
    let mut code = vec![0x48, 0x8B, 0x87];
    code.extend(fields.rip);
    code.extend([0x48, 0x89, 0x87]);
    code.extend(fields.prev_rip);
    code.extend([0xC6, 0x87]);
    code.extend(fields.speculative_rsp);
    code.push(0);
    code
}

/// Puts the missing assignment in front of `cpu_run_trace`.
pub(super) fn mend() {
    let (Some(outer), Some(trace)) = (hook::symbol(LOOP), hook::symbol(TRACE)) else {
        return; // not Bochs, or one for a single processor
    };
    // SAFETY: the function is code of the program, mapped readable, and much longer than what is searched.
    let outer = unsafe { std::slice::from_raw_parts(outer.cast::<u8>(), SEARCHED) };
    let mended = find_fields(outer)
        .is_some_and(|fields| hook::prepend(trace, &PROLOGUE, &assignments(&fields)));
    if !mended {
        eprintln!(
            "bochs_idiv: an unknown Bochs; virtual machines may crash on more than one processor"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        rip: [0xE8, 0, 0, 0],
        speculative_rsp: [0x38, 1, 0, 0],
        prev_rip: [0x20, 1, 0, 0],
    };

    #[test]
    fn the_fields_are_found_where_the_compiler_put_them() {
        let code = [
            0x90, 0x48, 0x8B, 0x82, 0xE8, 0, 0, 0, 0xC6, 0x82, 0x38, 1, 0, 0, 0, 0x48, 0x89, 0x82,
            0x20, 1, 0, 0, 0xC3,
        ];
        assert_eq!(find_fields(&code), Some(FIELDS));
        assert_eq!(find_fields(&code[2..]), None);
    }

    #[test]
    fn the_assignments_go_through_the_first_argument() {
        assert_eq!(
            assignments(&FIELDS),
            [
                0x48, 0x8B, 0x87, 0xE8, 0, 0, 0, 0x48, 0x89, 0x87, 0x20, 1, 0, 0, 0xC6, 0x87, 0x38,
                1, 0, 0, 0
            ]
        );
    }
}
