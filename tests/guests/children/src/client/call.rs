//! One hypercall: its blocks in pages of this program, its forms, and the restart of rep calls as Linux does it.

use core::sync::atomic::{AtomicU64, Ordering};

use machine::cpu::{self, MAX_CPUS};
use machine::page::Page;
use machine::trap::{self, Regs};
use machine::{insn, probe};
use tlfs::{CallCode, Control, HvError};
use x86::Gp;

use crate::arena;

const GUEST_OS_ID: u32 = 0x4000_0000;
const HYPERCALL: u32 = 0x4000_0001;
/// What Linux 7.3.4 writes to GUEST_OS_ID.
const LINUX: u64 = 0x8100_0007_0304_0000;

/// Status of a call that raised an exception, whose vector is in the low byte.
pub const FAULTED: u16 = 0xFA00;

static CALL_PAGE: AtomicU64 = AtomicU64::new(0);
static INPUT: [Page; MAX_CPUS] = [const { Page::new() }; MAX_CPUS];
static OUTPUT: [Page; MAX_CPUS] = [const { Page::new() }; MAX_CPUS];

/// Sets the identity and enables the hypercall page; whether both were taken.
pub fn enable() -> bool {
    let page = match CALL_PAGE.load(Ordering::SeqCst) {
        0 => arena::frame(),
        page => page,
    };
    CALL_PAGE.store(page, Ordering::SeqCst);
    probe::wrmsr(GUEST_OS_ID, LINUX).is_ok()
        && probe::wrmsr(HYPERCALL, page | 1).is_ok()
        && insn::rdmsr(HYPERCALL) == page | 1
}

/// Takes page and identity back.
pub fn disable() {
    insn::wrmsr(HYPERCALL, 0);
    insn::wrmsr(GUEST_OS_ID, 0);
}

/// Where the hypercall page is.
pub fn page() -> u64 {
    CALL_PAGE.load(Ordering::SeqCst)
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: Result<(), HvError>,
    /// Elements done, from element 0.
    pub done: u16,
}

impl Reply {
    fn of(word: u64) -> Self {
        let status = match word as u16 {
            0 => Ok(()),
            code => Err(HvError(code)),
        };
        Self {
            status,
            done: (word >> 32) as u16 & 0xFFF,
        }
    }

    /// The status as a number, for comparison.
    pub fn code(&self) -> u64 {
        code(self.status)
    }
}

/// A status as a number.
pub fn code<T>(status: Result<T, HvError>) -> u64 {
    status.map_or_else(|error| u64::from(error.0), |_| 0)
}

/// Executes the call instruction once and returns RAX, or [`FAULTED`].
pub fn raw(control: u64, input: u64, output: u64) -> u64 {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, control);
    regs.gp.set(Gp::Rdx, input);
    regs.gp.set(Gp::R8, output);
    match trap::call_at(page(), &mut regs) {
        Ok(()) => regs.gp.get(Gp::Rax),
        Err(fault) => u64::from(FAULTED) | u64::from(fault.vector),
    }
}

/// Executes the call instruction as fast as a kernel does, with this processor's output page. It must not fault.
#[expect(unsafe_code, reason = "the page is called through its address")]
pub fn plain(control: u64, input: u64) -> u64 {
    let result: u64;
    // SAFETY: the page holds the vendor's call and a return, and the call changes RAX and this program's pages.
    unsafe {
        core::arch::asm!(
            "call {page}",
            page = in(reg) page(),
            in("rcx") control,
            in("rdx") input,
            in("r8") output_page().address(),
            out("rax") result,
        );
    }
    result
}

/// This processor's input page.
pub fn input_page() -> &'static Page {
    &INPUT[cpu::this().index.load(Ordering::Relaxed) as usize]
}

/// This processor's output page.
pub fn output_page() -> &'static Page {
    &OUTPUT[cpu::this().index.load(Ordering::Relaxed) as usize]
}

/// Puts `parts` one behind the other into this processor's input page.
pub fn put(parts: &[&[u8]]) {
    let page = input_page();
    let mut word = [0_u8; 8];
    let mut at = 0;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        word[at % 8] = *byte;
        at += 1;
        if at % 8 == 0 {
            page.set(at - 8, u64::from_le_bytes(word));
            word = [0; 8];
        }
    }
    if at % 8 != 0 {
        page.set(at & !7, u64::from_le_bytes(word));
    }
}

fn take(out: &mut [u8]) {
    let page = output_page();
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = page.byte(at);
    }
}

/// A simple call without output, its input in memory.
pub fn simple(code: CallCode, input: &[u8]) -> Result<(), HvError> {
    put(&[input]);
    let word = raw(Control::simple(code).0, input_page().address(), 0);
    Reply::of(word).status
}

/// A simple call with its input in registers.
pub fn fast(code: CallCode, first: u64, second: u64) -> Result<(), HvError> {
    let word = raw(Control::simple(code).0 | Control::FAST, first, second);
    Reply::of(word).status
}

/// A simple call with output.
pub fn ask<const N: usize>(code: CallCode, input: &[u8]) -> Result<[u8; N], HvError> {
    ask_with(code, input, &[])
}

/// A simple call with a variable header and output.
pub fn ask_with<const N: usize>(
    code: CallCode,
    input: &[u8],
    header: &[u8],
) -> Result<[u8; N], HvError> {
    put(&[input, header]);
    let control = Control::simple(code).0 | ((header.len() as u64 / 8) << 17);
    let output = output_page().address();
    let word = raw(control, input_page().address(), output);
    Reply::of(word).status?;
    let mut out = [0; N];
    take(&mut out);
    Ok(out)
}

/// A rep call: `header`, `count` elements of `list`, and room for the output list. Issued again, as Linux does,
/// while the status is 0 and elements are left.
pub fn rep(code: CallCode, header: &[u8], list: &[u8], count: u16, out: &mut [u8]) -> Reply {
    put(&[header, list]);
    let mut control = Control::simple(code).0 | (u64::from(count) << 32);
    loop {
        let word = raw(control, input_page().address(), output_page().address());
        let reply = Reply::of(word);
        let before = Control(control).rep_start();
        if reply.status.is_err() || reply.done >= count || reply.done == before {
            let each = out.len() / usize::from(count.max(1));
            take(&mut out[..each * usize::from(reply.done.min(count))]);
            return reply;
        }
        control = Control(control).with_rep_start(reply.done).0;
    }
}
