//! Children that do what they can to harm others: the parent keeps answering, another child's results stay right.

mod accesses;
mod bystander;
mod load;
mod nothing;
mod overlays;
mod random;
mod sets;
mod time_page;

use machine::clock;
use machine::platform::Platform;
use machine::verdict::{check, note};
use tlfs::MessageType;
use tlfs::register::RegisterName as N;

use super::{destroy, need};
use crate::child::code::STOP;
use crate::child::guest::Guest;
use crate::child::runtime;
use crate::client::intercept::Intercept;
use crate::client::vp::{PATIENCE, set_registers};
use crate::options::Options;
use accesses::{addresses, every_msr, every_port};
use bystander::Bystander;
use load::{Load, load, triple_faults};
use nothing::null_pages;
use overlays::{move_overlays, storm};
use random::{changing_calls, flip_input, pairs, random_calls};
use sets::sparse_sets;
use time_page::time_page_race;

/// The longest that one hostile program runs, in microseconds of the parent's time.
const LONG: u64 = 60_000_000;
/// Instructions that fault in the child are three bytes long: `mov rax, [rbx]`, VMCALL, VMMCALL.
const ACCESS_LENGTH: u64 = 3;

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    let Some(bystander) = Bystander::new() else {
        return;
    };
    // Bochs takes its time; a sample is enough there.
    let few = if is_fast() { 1 } else { 16 };
    let step = options.step * few;
    let seed = options.seed;
    let calls = options.calls / few;
    let parts: [&dyn Fn(); 15] = [
        &|| addresses(&bystander, platform, few),
        &|| {
            answered(
                &bystander,
                "ports",
                every_port,
                &[step],
                2 * 65536 / step + 10,
            )
        },
        &|| answered(&bystander, "msrs", every_msr, &[seed, step], 100),
        &|| answered(&bystander, "calls", random_calls, &[seed, calls], calls * 3),
        &|| {
            pairs(
                &bystander,
                "changing input",
                changing_calls,
                flip_input,
                &[seed, 10_000 / few],
            )
        },
        &|| pairs(&bystander, "SIPI storm", storm, storm, &[seed, 5_000 / few]),
        &|| {
            pairs(
                &bystander,
                "overlays",
                move_overlays,
                move_overlays,
                &[seed, 3_000 / few],
            )
        },
        &|| sparse_sets(&bystander),
        &|| null_pages(&bystander),
        &|| triple_faults(&bystander),
        &|| load(&bystander, "endless rep", Load::Rep),
        &|| load(&bystander, "endless flushes", Load::Flush),
        &|| load(&bystander, "endless interrupts", Load::Interrupts),
        &|| time_page_race(&bystander, 3000 / few),
        &|| load(&bystander, "HLT without interrupts", Load::Halt),
    ];
    for (n, part) in (1..).zip(parts) {
        if options.part == 0 || options.part == n {
            part();
        }
    }
    bystander.end();
}

/// QEMU without `-icount`: its TSC is host time.
fn is_fast() -> bool {
    clock::tsc_hz() > 500_000_000
}

/// Answers what a child stops for, in a way that lets it go on: what it wrote is dropped, what it reads is all ones.
/// True when it came to its end.
fn answer(guest: &Guest, most: u64, seen: &mut u64) -> bool {
    let start = clock::reference();
    let mut stop = guest.run_for(0, 10 * PATIENCE);
    while let Some(at) = stop {
        if at.is_out(STOP) {
            return true;
        }
        *seen += 1;
        // What does much may take longer; each intercept costs an emulator on a busy host some milliseconds.
        if *seen > most || clock::reference() - start > LONG * 10 * (1 + most / 10_000) {
            note(format_args!("given up after {seen} intercepts: {at}"));
            return false;
        }
        stop = pass(guest, 0, &at);
    }
    note(format_args!("no intercept in time, {seen} before"));
    false
}

fn pass(guest: &Guest, vp: u32, at: &Intercept) -> Option<Intercept> {
    let length = match at.kind {
        MessageType::IO_PORT_INTERCEPT | MessageType::MSR_INTERCEPT => at.length(),
        MessageType::UNMAPPED_GPA | MessageType::GPA_INTERCEPT => ACCESS_LENGTH,
        _ => {
            note(format_args!("nobody answers {at}"));
            return None;
        }
    };
    let rip = at.header().rip + length;
    let list = [(N::RIP, rip.into()), (N::RAX, u128::from(u64::MAX))];
    set_registers(guest.id, vp, &list).status.ok()?;
    guest.run_for(vp, 10 * PATIENCE)
}

/// Runs `entry` on a child of its own and answers its intercepts.
fn answered(bystander: &Bystander, name: &str, entry: runtime::Entry, args: &[u64], most: u64) {
    let Some(mut guest) = need(format_args!("{name}: a child"), Guest::new(1)) else {
        return;
    };
    let (before, mut seen) = (bystander.rounds(), 0);
    need(
        format_args!("{name}: start"),
        guest.start_entry(0, entry, args),
    );
    let ended = answer(&guest, most, &mut seen);
    check(format_args!("{name}: the child comes to its end"), ended);
    note(format_args!(
        "{name}: {seen} intercepts, result {:x?}",
        [0, 1, 2].map(|n| guest.shared(0).result(n))
    ));
    bystander.check(name, before);
    destroy(name, guest);
}
