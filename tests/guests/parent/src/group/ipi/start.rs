//! INIT and SIPI (Intel SDM vol. 3A, "Multiple-Processor Initialization" and "Processor State After Reset").

use x86::cr0;
use x86::msr::apic_base;

use super::Others;
use machine::apic::{self, LVT_MASKED, icr};
use machine::verdict::{check, check_strict, equal, note};
use machine::{clock, cpu, insn, smp, trampoline};

const VP_INDEX: u32 = 0x4000_0002;
const PENDING_VECTOR: u32 = 0x53;

/// Long enough for an emulated processor to come up, in microseconds.
const PATIENCE: u64 = 2_000_000;
/// Long enough to be sure that nothing comes.
const QUIET: u64 = 20_000;

fn assert_init(destination: u32) {
    apic::command(destination, icr::INIT | icr::LEVEL | icr::ASSERT);
}

fn deassert_init(destination: u32) {
    apic::command(destination, icr::INIT | icr::LEVEL);
}

fn arrives(number: usize, times: u64) -> bool {
    clock::wait_for(PATIENCE, || smp::arrivals(number) >= times)
}

/// Starts the processor with APIC id `id` as number `number`, and looks at the state it begins in.
pub fn one(mode: &str, others: &Others, number: usize, id: u32) -> bool {
    trampoline::number_from(others.page, number as u64);
    let before = smp::arrivals(number);
    assert_init(id);
    deassert_init(id);
    clock::spin(QUIET);
    equal(
        format_args!("{mode}: processor {id} waits for SIPI after INIT"),
        smp::arrivals(number),
        before,
    );
    apic::command(id, others.sipi());
    let came = arrives(number, before + 1);
    check(format_args!("{mode}: SIPI starts processor {id}"), came);
    if !came {
        return false;
    }
    apic::command(id, others.sipi());
    clock::spin(QUIET);
    equal(
        format_args!("{mode}: a second SIPI is ignored"),
        smp::arrivals(number),
        before + 1,
    );
    equal(
        format_args!("{mode}: nobody else started"),
        trampoline::next_number(others.page),
        number as u64 + 1,
    );
    equal(
        format_args!("{mode}: it has the id it was called by"),
        smp::apic_id(number).into(),
        id.into(),
    );
    registers(mode, others);
    local_apic(mode, number);
    let by_cpuid = smp::on(number, |_| u64::from(insn::cpuid(1, 0).ebx >> 24), 0);
    check(
        format_args!("{mode}: CPUID 1 on it names its id"),
        by_cpuid == Some(u64::from(id & 0xFF)),
    );
    if insn::cpuid(0, 0).eax >= 0xB && insn::cpuid(0xB, 0).ebx != 0 {
        let by_cpuid = smp::on(number, |_| insn::cpuid(0xB, 0).edx.into(), 0);
        check(
            format_args!("{mode}: CPUID 0xB on it names its id"),
            by_cpuid == Some(id.into()),
        );
    }
    true
}

fn registers(mode: &str, others: &Others) {
    let saved = trampoline::saved(others.page);
    let [eax, ebx, ecx, edx, esi, edi, ebp, esp] = saved.general;
    equal(
        format_args!("{mode}: CS is the SIPI vector"),
        saved.cs.into(),
        others.page >> 4,
    );
    equal(
        format_args!("{mode}: DS, ES, SS are 0"),
        u64::from(saved.ds | saved.es | saved.ss),
        0,
    );
    // Family, model, stepping; the other general registers are 0 (EAX after INIT too).
    equal(
        format_args!("{mode}: EDX is the signature"),
        edx.into(),
        insn::cpuid(1, 0).eax.into(),
    );
    equal(
        format_args!("{mode}: other registers are 0"),
        (eax | ebx | ecx | esi | edi | ebp | esp).into(),
        0,
    );
    equal(format_args!("{mode}: EFLAGS"), saved.eflags.into(), 2);
    equal(
        format_args!("{mode}: CR0 of INIT"),
        (u64::from(saved.cr0)) & !(cr0::CD | cr0::NW),
        cr0::ET,
    );
    check_strict(format_args!("{mode}: CR3 is 0"), saved.cr3 == 0);
    equal(format_args!("{mode}: CR4 is 0"), saved.cr4.into(), 0);
    equal(format_args!("{mode}: EFER is 0"), saved.efer.into(), 0);
    equal(
        format_args!("{mode}: GDTR"),
        (u64::from(saved.gdtr.0) << 32) | u64::from(saved.gdtr.1),
        0xFFFF_0000_0000,
    );
    equal(
        format_args!("{mode}: IDTR"),
        (u64::from(saved.idtr.0) << 32) | u64::from(saved.idtr.1),
        0xFFFF_0000_0000,
    );
    note(format_args!(
        "CR0 at the first instruction {:#x}",
        saved.cr0
    ));
}

fn local_apic(mode: &str, number: usize) {
    let [spurious, timer, priority] = smp::apic_reset(number);
    equal(
        format_args!("{mode}: APIC after INIT: SVR"),
        spurious & 0x1FF,
        0xFF,
    );
    equal(
        format_args!("{mode}: APIC after INIT: timer masked"),
        timer,
        LVT_MASKED.into(),
    );
    equal(format_args!("{mode}: APIC after INIT: TPR"), priority, 0);
    let base = smp::apic_base(number);
    check(
        format_args!("{mode}: not the boot processor"),
        base & apic_base::BSP == 0 && base & apic_base::ENABLE != 0,
    );
}

/// Clocks and identity of each processor against the boot processor's.
pub fn clocks(others: &Others) {
    for number in others.all() {
        let mut warps = 0;
        for _ in 0..100 {
            let before = insn::rdtsc();
            let there = smp::on(number, |_| insn::rdtsc(), 0).unwrap_or(0);
            let after = insn::rdtsc();
            warps += u64::from(there < before || there > after);
        }
        equal(
            format_args!("ipi: TSC of processor {number} agrees with the boot processor's"),
            warps,
            0,
        );
        if !clock::has_reference() {
            continue;
        }
        let mut warps = 0;
        for _ in 0..100 {
            let before = clock::reference();
            let there = smp::on(number, |_| clock::reference(), 0).unwrap_or(0);
            let after = clock::reference();
            warps += u64::from(there < before || there > after);
        }
        equal(
            format_args!("ipi: reference counter of processor {number} agrees"),
            warps,
            0,
        );
        let vp = smp::on(number, |_| insn::rdmsr(VP_INDEX), 0);
        equal(
            format_args!("ipi: VP index of processor {number}"),
            vp.unwrap_or(u64::MAX),
            number as u64,
        );
    }
}

/// What must not start a processor, and what INIT does to one that runs.
pub fn corners(mode: &str, others: &Others) {
    for number in others.all() {
        let id = smp::apic_id(number);
        let before = smp::arrivals(number);
        apic::command(id, others.sipi());
        deassert_init(id);
        clock::spin(QUIET);
        let alive = smp::on(number, |value| value + 1, 41) == Some(42);
        check(
            format_args!("{mode}: SIPI and INIT de-assert leave a running processor alone"),
            alive,
        );
        equal(
            format_args!("{mode}: it did not start again"),
            smp::arrivals(number),
            before,
        );

        // An interrupt that waits is gone after INIT.
        smp::ask(
            number,
            |_| {
                insn::cli();
                insn::halt_forever();
                0
            },
            0,
        );
        clock::spin(QUIET);
        apic::command(id, PENDING_VECTOR);
        trampoline::number_from(others.page, number as u64);
        assert_init(id);
        deassert_init(id);
        clock::spin(1_000);
        assert_init(id);
        deassert_init(id);
        clock::spin(10_000);
        apic::command(id, others.sipi());
        check(
            format_args!("{mode}: INIT twice, SIPI once: it starts"),
            arrives(number, before + 1),
        );
        clock::spin(1_000);
        let count = cpu::by_index(number).count(PENDING_VECTOR as u8);
        equal(
            format_args!("{mode}: an interrupt from before INIT is gone"),
            count.into(),
            0,
        );
        restore_mode(mode, number);
    }
}

/// INIT to all others and a single SIPI, the way OVMF does it.
pub fn broadcast(mode: &str, others: &Others) {
    for (name, pause) in [("after 10 ms", 10_000), ("at once", 0)] {
        if pause == 0 && !clock::has_reference() {
            // An architecture leaves room for a lost SIPI here; the hypervisor does not.
            continue;
        }
        let mut before = [0; cpu::MAX_CPUS];
        for number in others.all() {
            before[number] = smp::arrivals(number);
        }
        trampoline::number_from(others.page, 1);
        apic::command(0, icr::OTHERS | icr::INIT | icr::LEVEL | icr::ASSERT);
        clock::spin(pause);
        apic::command(0, icr::OTHERS | others.sipi());
        let all = clock::wait_for(PATIENCE, || {
            others
                .all()
                .all(|number| smp::arrivals(number) > before[number])
        });
        check(
            format_args!("{mode}: broadcast INIT and one SIPI {name} start all"),
            all,
        );
        clock::spin(QUIET);
        let once = others
            .all()
            .all(|number| smp::arrivals(number) == before[number] + 1);
        check(format_args!("{mode}: each once"), once);
        for number in others.all() {
            restore_mode(mode, number);
        }
    }
}

/// INIT keeps the mode of the APIC; a machine that resets it gets it back here.
fn restore_mode(mode: &str, number: usize) {
    let wanted = if mode.starts_with("x2APIC") {
        apic_base::EXTD
    } else {
        0
    };
    let got = smp::apic_base(number) & apic_base::EXTD;
    check_strict(
        format_args!("{mode}: INIT keeps the mode of the APIC"),
        got == wanted,
    );
    if wanted != 0 && got == 0 {
        let _ = smp::on(number, super::to_x2apic, 0);
    }
}
