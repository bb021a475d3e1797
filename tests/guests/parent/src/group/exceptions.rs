//! Instructions that fault, and instructions that exit: what the guest sees right after them.

use x86::{Gp, cr0, cr4, vector};

use crate::group::hypercall::page;
use crate::options::Options;
use machine::platform::Platform;
use machine::probe::{is_gp, is_ud};
use machine::snippet;
use machine::trap::{self, Fault, Regs, Snippet};
use machine::verdict::{check, check_strict, equal, note, skip};
use machine::{clock, insn, probe};

const TIME_REF_COUNT: u32 = 0x4000_0020;
const IA32_TSC: u32 = 0x10;

snippet!(code_vmrun: "vmrun");
snippet!(code_vmload: "vmload");
snippet!(code_vmsave: "vmsave");
snippet!(code_stgi: "stgi");
snippet!(code_clgi: "clgi");
snippet!(code_skinit: "skinit");
snippet!(code_invlpga: "invlpga");
snippet!(code_vmxon: "vmxon [rsp - 64]");
snippet!(code_vmxoff: "vmxoff");
snippet!(code_vmlaunch: "vmlaunch");
snippet!(code_vmresume: "vmresume");
snippet!(code_vmptrld: "vmptrld [rsp - 64]");
snippet!(code_vmread: "vmread rax, rbx");
snippet!(code_vmwrite: "vmwrite rax, rbx");
snippet!(code_invept: "invept rax, [rsp - 64]");
snippet!(code_invvpid: "invvpid rax, [rsp - 64]");
snippet!(code_getsec: ".byte 0x0F, 0x37");
snippet!(code_vmfunc: "vmfunc");
snippet!(code_monitor: "monitor");
snippet!(code_mwait: "mwait");
snippet!(code_rsm: "rsm");
snippet!(code_ud2: "ud2");

// Each exits and then leaves a mark in R15: a wrong length skips the mark or runs into the middle of it.
snippet!(length_cpuid: "cpuid", "mov r15d, 0x5A");
snippet!(length_rex_cpuid: ".byte 0x48, 0x0F, 0xA2", "mov r15d, 0x5A");
snippet!(length_rep_cpuid: ".byte 0xF3, 0x0F, 0xA2", "mov r15d, 0x5A");
snippet!(length_prefixed_cpuid: ".byte 0x66, 0x2E, 0x67, 0xF2, 0x48, 0x0F, 0xA2", "mov r15d, 0x5A");
snippet!(length_rdmsr: "rdmsr", "mov r15d, 0x5A");
snippet!(length_rex_rdmsr: ".byte 0x48, 0x0F, 0x32", "mov r15d, 0x5A");
snippet!(length_prefixed_rdmsr: ".byte 0x66, 0x67, 0x0F, 0x32", "mov r15d, 0x5A");
snippet!(length_rex_wrmsr: ".byte 0x4F, 0x0F, 0x30", "mov r15d, 0x5A");
snippet!(length_in: "in al, dx", "mov r15d, 0x5A");
snippet!(length_in_imm: "in al, 0x80", "mov r15d, 0x5A");
snippet!(length_rex_in: ".byte 0x48, 0xED", "mov r15d, 0x5A");
snippet!(length_wbinvd: "wbinvd", "mov r15d, 0x5A");
snippet!(length_rex_wbinvd: ".byte 0x48, 0x0F, 0x09", "mov r15d, 0x5A");
snippet!(length_invd: "invd", "mov r15d, 0x5A");
snippet!(length_xsetbv: "xsetbv", "mov r15d, 0x5A");
snippet!(length_rex_xsetbv: ".byte 0x48, 0x0F, 0x01, 0xD1", "mov r15d, 0x5A");
snippet!(length_pause: "pause", "mov r15d, 0x5A");
snippet!(length_rdtsc: "rdtsc", "mov r15d, 0x5A");
snippet!(length_cr0: "mov rbx, cr0", "mov cr0, rbx", "mov r15d, 0x5A");
snippet!(length_cr4_r12: "mov r12, cr4", "mov cr4, r12", "mov r15d, 0x5A");
snippet!(length_cr8: "mov rbx, cr8", "mov cr8, rbx", "mov r15d, 0x5A");
snippet!(length_clts: "clts", "mov r15d, 0x5A");
snippet!(length_lmsw: "smsw ax", "lmsw ax", "mov r15d, 0x5A");
snippet!(length_lmsw_memory: "smsw word ptr [rsp - 16]", "lmsw word ptr [rsp - 16]", "mov r15d, 0x5A");
snippet!(length_invlpg: "invlpg [rsp]", "mov r15d, 0x5A");
snippet!(length_dr7: "mov rax, dr7", "mov dr7, rax", "mov r15d, 0x5A");

// Single steps: the trap comes after the instruction that follows POPF.
snippet!(step_cpuid: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "cpuid", "nop", "nop");
snippet!(step_rdmsr: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "rdmsr", "nop", "nop");
snippet!(step_in: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "in al, dx", "nop", "nop");
snippet!(step_nop: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop", "nop");
snippet!(step_apic: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "mov eax, [rbx]", "nop", "nop");
snippet!(step_vmcall: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "vmcall", "nop", "nop");
snippet!(step_vmmcall: "pushfq", "or dword ptr [rsp], 0x100", "popfq", "vmmcall", "nop", "nop");

/// Bytes of PUSHF, OR and POPF in front of the stepped instruction.
const STEP_PROLOGUE: u64 = 9;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    virtualization();
    control_registers();
    lengths();
    single_steps();
    debug_registers();
}

fn virtualization() {
    let all: [(&str, Snippet); 18] = [
        ("VMRUN", code_vmrun),
        ("VMLOAD", code_vmload),
        ("VMSAVE", code_vmsave),
        ("STGI", code_stgi),
        ("CLGI", code_clgi),
        ("SKINIT", code_skinit),
        ("INVLPGA", code_invlpga),
        ("VMXON", code_vmxon),
        ("VMXOFF", code_vmxoff),
        ("VMLAUNCH", code_vmlaunch),
        ("VMRESUME", code_vmresume),
        ("VMPTRLD", code_vmptrld),
        ("VMREAD", code_vmread),
        ("VMWRITE", code_vmwrite),
        ("INVEPT", code_invept),
        ("INVVPID", code_invvpid),
        ("GETSEC", code_getsec),
        ("VMFUNC", code_vmfunc),
    ];
    for (name, code) in all {
        let result = trap::call(code, &mut Regs::default());
        if !check(format_args!("exceptions: {name} gives #UD"), is_ud(&result)) {
            note(format_args!("{result:x?}"));
        }
    }
    check(
        "exceptions: RSM gives #UD",
        is_ud(&trap::call(code_rsm, &mut Regs::default())),
    );
    check(
        "exceptions: UD2 gives #UD",
        is_ud(&trap::call(code_ud2, &mut Regs::default())),
    );
    if insn::cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::MONITOR == 0 {
        // The hypervisor may skip them instead: firmware parks processors in MWAIT whatever CPUID says.
        let mut regs = Regs::default();
        regs.gp.set(Gp::Rax, machine::tables::image_base());
        let result = trap::call(code_monitor, &mut regs);
        check(
            "exceptions: hidden MONITOR gives #UD or does nothing",
            result.is_ok() || is_ud(&result),
        );
        let result = trap::call(code_mwait, &mut Regs::default());
        check(
            "exceptions: hidden MWAIT gives #UD or wakes at once",
            result.is_ok() || is_ud(&result),
        );
    }
}

fn control_registers() {
    let (old0, old3, old4) = (insn::read_cr0(), insn::read_cr3(), insn::read_cr4());
    let unchecked = !is_gp(&probe::write_cr0(old0 | (1 << 32)));
    insn::write_cr0(old0);
    if unchecked {
        // A hypervisor that does not intercept CR0 cannot make up for it, and the rest would stop the machine.
        skip(
            "exceptions: reserved bits of CR0 and CR4",
            "this processor does not check them (QEMU's TCG)",
        );
    } else {
        let refused0 = |name: &str, value| {
            check(
                format_args!("exceptions: {name} gives #GP"),
                is_gp(&probe::write_cr0(value)),
            );
        };
        if !page::is_amd() {
            // AMD-V lets a guest have paging without protection ("paged real mode"), and Bochs panics over it here.
            refused0("CR0.PG without PE", old0 & !cr0::PE);
        }
        refused0("CR0.NW without CD", (old0 & !cr0::CD) | cr0::NW);
        refused0("clearing CR0.PG in 64-bit code", old0 & !cr0::PG);
        equal("exceptions: CR0 unchanged", insn::read_cr0(), old0);
        let refused4 = |name: &str, value| {
            check(
                format_args!("exceptions: {name} gives #GP"),
                is_gp(&probe::write_cr4(value)),
            );
        };
        refused4("CR4 bit 40", old4 | (1 << 40));
        refused4("CR4 bit 15", old4 | (1 << 15));
        refused4("clearing CR4.PAE in long mode", old4 & !cr4::PAE);
        refused4("changing CR4.LA57 in long mode", old4 ^ cr4::LA57);
        equal("exceptions: CR4 unchanged", insn::read_cr4(), old4);
    }
    if unchecked && !clock::has_reference() {
        // TCG answers these with an exit of a guest, also where there is none, and hangs.
        skip(
            "exceptions: CR4.VMXE and long CR3",
            "this bare machine does not survive them (QEMU's TCG)",
        );
    } else {
        // Legal on a bare machine that has VMX.
        check_strict(
            "exceptions: CR4.VMXE gives #GP",
            is_gp(&probe::write_cr4(old4 | cr4::VMXE)),
        );
        check_strict("exceptions: CR4 unchanged by it", insn::read_cr4() == old4);
        insn::write_cr4(old4);
        check(
            "exceptions: CR3 above the physical addresses gives #GP",
            is_gp(&probe::write_cr3(old3 | (1 << 58))),
        );
        equal("exceptions: CR3 unchanged by it", insn::read_cr3(), old3);
    }

    // NE, CD and NW belong to the hypervisor; the guest must see its own.
    insn::write_cr0(old0 & !cr0::NE);
    equal(
        "exceptions: CR0.NE can be cleared",
        insn::read_cr0(),
        old0 & !cr0::NE,
    );
    insn::write_cr0(old0 | cr0::CD);
    equal(
        "exceptions: CR0.CD can be set",
        insn::read_cr0(),
        old0 | cr0::CD,
    );
    insn::write_cr0(old0);
    equal("exceptions: CR0 restored", insn::read_cr0(), old0);
    xsetbv(old4);
}

fn xsetbv(old4: u64) {
    if insn::cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::XSAVE == 0 {
        skip("exceptions: XSETBV", "no XSAVE");
        return;
    }
    insn::write_cr4(old4 & !cr4::OSXSAVE);
    check(
        "exceptions: XSETBV with OSXSAVE clear gives #UD",
        is_ud(&probe::xsetbv(0, 1)),
    );
    insn::write_cr4(old4 | cr4::OSXSAVE);
    let old = insn::read_xcr0();
    check(
        "exceptions: XSETBV of 0 gives #GP",
        is_gp(&probe::xsetbv(0, 0)),
    );
    check(
        "exceptions: XSETBV of AVX without SSE gives #GP",
        is_gp(&probe::xsetbv(0, 5)),
    );
    check(
        "exceptions: XSETBV of unknown state gives #GP",
        is_gp(&probe::xsetbv(0, old | (1 << 62))),
    );
    check(
        "exceptions: XSETBV of register 1 gives #GP",
        is_gp(&probe::xsetbv(1, 1)),
    );
    check(
        "exceptions: XSETBV of valid state",
        probe::xsetbv(0, 3).is_ok() && insn::read_xcr0() == 3,
    );
    insn::write_xcr0(old);
    insn::write_cr4(old4);
}

fn lengths() {
    let old4 = insn::read_cr4();
    let xsave = insn::cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::XSAVE != 0;
    if xsave {
        insn::write_cr4(old4 | cr4::OSXSAVE);
    }
    let msr = if clock::has_reference() {
        TIME_REF_COUNT
    } else {
        IA32_TSC
    };
    let debug_free = 0xFFFF_FFFF_0000_0080;
    let all: [(&str, Snippet, u64); 23] = [
        ("CPUID", length_cpuid, 0),
        ("REX CPUID", length_rex_cpuid, 0),
        ("REP CPUID", length_rep_cpuid, 0),
        ("CPUID with five prefixes", length_prefixed_cpuid, 0),
        ("RDMSR", length_rdmsr, msr.into()),
        ("REX RDMSR", length_rex_rdmsr, msr.into()),
        ("RDMSR with two prefixes", length_prefixed_rdmsr, msr.into()),
        (
            "REX WRMSR",
            length_rex_wrmsr,
            x86::msr::KERNEL_GS_BASE.into(),
        ),
        ("IN AL, DX", length_in, 0),
        ("IN AL, imm8", length_in_imm, 0),
        ("REX IN EAX, DX", length_rex_in, 0),
        ("WBINVD", length_wbinvd, 0),
        ("REX WBINVD", length_rex_wbinvd, 0),
        ("PAUSE", length_pause, 0),
        ("RDTSC", length_rdtsc, 0),
        ("MOV CR0", length_cr0, 0),
        ("MOV CR4, R12", length_cr4_r12, 0),
        ("MOV CR8", length_cr8, 0),
        ("CLTS", length_clts, 0),
        ("LMSW AX", length_lmsw, 0),
        ("LMSW memory", length_lmsw_memory, 0),
        ("INVLPG", length_invlpg, 0),
        ("MOV DR7", length_dr7, 0),
    ];
    for (name, code, rcx) in all {
        let mut regs = Regs::default();
        regs.gp.set(Gp::Rcx, rcx);
        // The POST code port: reading it is harmless everywhere, and for RDMSR and WRMSR RDX is data.
        regs.gp.set(Gp::Rdx, if rcx == 0 { debug_free } else { 0 });
        let result = trap::call(code, &mut regs);
        if !check(
            format_args!("exceptions: {name} ends where it should"),
            result.is_ok() && regs.gp.get(Gp::R15) == 0x5A,
        ) {
            note(format_args!("{result:x?} r15 {:#x}", regs.gp.get(Gp::R15)));
        }
    }
    if clock::has_reference() {
        // On a bare machine with caches it loses memory; a hypervisor writes back.
        let mut regs = Regs::default();
        let result = trap::call(length_invd, &mut regs);
        check(
            "exceptions: INVD ends where it should",
            result.is_ok() && regs.gp.get(Gp::R15) == 0x5A,
        );
    }
    if xsave {
        for (name, code) in [
            ("XSETBV", length_xsetbv as Snippet),
            ("REX XSETBV", length_rex_xsetbv),
        ] {
            let old = insn::read_xcr0();
            let mut regs = Regs::default();
            regs.gp.set_edx_eax(old);
            let result = trap::call(code, &mut regs);
            let holds = result.is_ok() && regs.gp.get(Gp::R15) == 0x5A;
            check(
                format_args!("exceptions: {name} ends where it should"),
                holds,
            );
        }
    }
    insn::write_cr4(old4);
}

fn single_steps() {
    let msr = if clock::has_reference() {
        TIME_REF_COUNT
    } else {
        IA32_TSC
    };
    stepped("NOP", step_nop, 1, 0, 0);
    stepped("CPUID", step_cpuid, 2, 0, 0);
    stepped("RDMSR", step_rdmsr, 2, msr.into(), 0);
    stepped("IN", step_in, 1, 0, 0x80);
    stepped("an APIC register read", step_apic, 2, 0, 0);
    if page::offered() {
        let code: Snippet = if page::is_amd() {
            step_vmmcall
        } else {
            step_vmcall
        };
        stepped("a hypercall", code, 3, 0x8 | (1 << 16), 0);
    }
}

fn stepped(name: &str, code: Snippet, len: u64, rcx: u64, rdx: u64) {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rcx, rcx);
    regs.gp.set(Gp::Rdx, rdx);
    regs.gp.set(Gp::Rbx, machine::apic::PAGE + 0x30);
    let result = trap::call(code, &mut regs);
    let wanted = code as *const () as u64 + STEP_PROLOGUE + len;
    let holds = matches!(result, Err(Fault { vector: vector::DB, rip, .. }) if rip == wanted);
    if !check(
        format_args!("exceptions: a single step over {name} traps right after it"),
        holds,
    ) {
        note(format_args!("{result:x?}, wanted #DB at {wanted:#x}"));
    }
}

fn debug_registers() {
    let mut regs = Regs::default();
    regs.gp.set(Gp::Rax, 0x1234_5678_9000);
    snippet!(code_dr0: "mov dr0, rax", "xor eax, eax", "mov rax, dr0", "mov rbx, 0", "mov dr0, rbx");
    let result = trap::call(code_dr0, &mut regs);
    check(
        "exceptions: DR0 keeps its value",
        result.is_ok() && regs.gp.get(Gp::Rax) == 0x1234_5678_9000,
    );
}
