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

use std::ffi::{CStr, c_void};

use super::{JUMP, redirect};

const LOOP: &CStr = c"_ZN8BX_CPU_C8cpu_loopEv";
const TRACE: &CStr = c"_ZN8BX_CPU_C13cpu_run_traceEv";

/// How far into `cpu_loop` the assignments may lie. The function is longer.
const SEARCHED: usize = 192;

/// ENDBR64; SUB RSP, imm8; MOV EAX, [RDI + disp32]: `None` stands for a byte of an operand.
const PROLOGUE: [Option<u8>; 14] = [
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
const _: () = assert!(PROLOGUE.len() >= JUMP);

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

/// The code to run in front of `cpu_run_trace`, whose first bytes are `prologue`, and which goes on at `rest`.
fn preamble(fields: &Fields, prologue: &[u8; PROLOGUE.len()], rest: u64) -> Vec<u8> {
    let mut code = Vec::new();
    // MOV RAX, [RDI + rip]; MOV [RDI + prev_rip], RAX; MOV byte [RDI + speculative_rsp], 0
    code.extend([0x48, 0x8B, 0x87]);
    code.extend(fields.rip);
    code.extend([0x48, 0x89, 0x87]);
    code.extend(fields.prev_rip);
    code.extend([0xC6, 0x87]);
    code.extend(fields.speculative_rsp);
    code.push(0);
    code.extend(prologue);
    // JMP [RIP + 0], since the prologue's EAX is still wanted.
    code.extend([0xFF, 0x25, 0, 0, 0, 0]);
    code.extend(rest.to_le_bytes());
    code
}

/// Copies `code` to memory that can be executed.
fn place(code: &[u8]) -> Option<u64> {
    const PAGE: usize = 4096;
    // SAFETY: a new private mapping of a page of zeros.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED || code.len() > PAGE {
        return None;
    }
    // SAFETY: the page is ours, writable, and long enough.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len()) };
    // SAFETY: the page is ours.
    let done = unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
    (done == 0).then_some(page as u64)
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a valid C string; the default handle needs nothing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// Puts the missing assignment in front of `cpu_run_trace`.
pub(super) fn mend() {
    let (Some(outer), Some(trace)) = (symbol(LOOP), symbol(TRACE)) else {
        return; // not Bochs, or one for a single processor
    };
    // SAFETY: the function is code of the program, mapped readable, and much longer than what is searched.
    let outer = unsafe { std::slice::from_raw_parts(outer.cast::<u8>(), SEARCHED) };
    // SAFETY: as above; this one is longer than its prologue.
    let prologue = unsafe { trace.cast::<[u8; PROLOGUE.len()]>().read() };
    let is_expected = PROLOGUE
        .iter()
        .zip(prologue)
        .all(|(expected, byte)| expected.is_none_or(|expected| expected == byte));
    let mended = find_fields(outer)
        .filter(|_| is_expected)
        .and_then(|fields| {
            place(&preamble(
                &fields,
                &prologue,
                trace as u64 + PROLOGUE.len() as u64,
            ))
        })
        .is_some_and(|code| redirect(trace.cast(), code));
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
    fn the_preamble_ends_in_the_prologue_and_a_jump_behind_it() {
        let code = preamble(&FIELDS, &[0x11; PROLOGUE.len()], 0x1234_5678_9ABC);
        let tail = &code[code.len() - 28..];
        assert_eq!(tail[..14], [0x11; 14]);
        assert_eq!(tail[14..20], [0xFF, 0x25, 0, 0, 0, 0]);
        assert_eq!(tail[20..], 0x1234_5678_9ABC_u64.to_le_bytes());
    }
}
