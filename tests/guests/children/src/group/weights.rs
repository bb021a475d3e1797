//! The scheduler: shares by weight, a cap, and the parent's own timer under load.

use alloc::vec::Vec;

use machine::platform::Platform;
use machine::verdict::{check, note, skip, within};
use machine::{clock, insn};
use tlfs::property::PropertyCode;
use tlfs::register::RegisterName as N;

use super::{destroy, need};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::options::Options;

const CHILDREN: u64 = 8;
const COUNTER: u64 = layout::DATA + 0x800;

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    if platform.processors().len() != 2 {
        skip("weights", "meant for two processors");
        return;
    }
    let mut guests = Vec::new();
    for n in 1..=CHILDREN {
        let Some(mut guest) = need(format_args!("weights: child {n}"), Guest::new(1)) else {
            return;
        };
        let weight = PropertyCode::CPU_WEIGHT;
        need(
            format_args!("weights: weight {n}"),
            guest.set_property(weight, n * 100),
        );
        need(
            "weights: start",
            guest.start(0, Mode::Long, code::spin, &[]),
        );
        need(
            "weights: counter",
            guest.set_one(0, N(N::RAX.0 + 7), COUNTER),
        );
        guests.push(guest);
    }
    for guest in &guests {
        need("weights: go", guest.resume(0));
    }
    // What they did before all of them ran does not count.
    synic::sleep(100_000);
    let read = |guests: &[Guest]| -> Vec<(u64, u64)> {
        guests
            .iter()
            .map(|guest| (guest.read(COUNTER), guest.reg(0, N::VP_RUNTIME)))
            .collect()
    };
    let before = read(&guests);
    let ticks = synic::ticks();
    let start = clock::reference();
    let mut latest = 0;
    let mut last = insn::rdtsc();
    let end = start + options.seconds * 10_000_000;
    while clock::reference() < end {
        insn::halt_once();
        let now = insn::rdtsc();
        latest = latest.max(now - last);
        last = now;
    }
    let elapsed = clock::reference() - start;
    let after = read(&guests);
    let ticks = u64::from(synic::ticks() - ticks);
    let work: Vec<u64> = before.iter().zip(&after).map(|(b, a)| a.0 - b.0).collect();
    let time: Vec<u64> = before
        .iter()
        .zip(&after)
        .map(|(b, a)| a.1.wrapping_sub(b.1))
        .collect();
    let (all_work, all_time) = (work.iter().sum::<u64>(), time.iter().sum::<u64>());
    note(format_args!(
        "work {work:?}, time in units of 100 ns {time:?}, {all_time} of {}",
        2 * elapsed
    ));
    for n in 1..=CHILDREN {
        let wanted = 1000 * n / 36;
        let share = work[n as usize - 1] * 1000 / all_work.max(1);
        within(
            format_args!("weights: share of weight {n} in 1/1000"),
            share,
            wanted * 95 / 100,
            wanted * 105 / 100 + 1,
        );
    }
    within(
        "weights: both processors are used, by VP_RUNTIME, in 1/1000",
        all_time * 1000 / (2 * elapsed),
        850,
        1001,
    );
    check(
        "weights: all of them worked",
        work.iter().all(|count| *count != 0),
    );
    note(format_args!(
        "the parent's timer: {ticks} ticks in {} ms, the longest gap {} us",
        elapsed / 10_000,
        clock::micros(latest)
    ));
    // Periods of a millisecond; a host that is busy may take some away.
    within(
        "weights: ticks of the parent per second",
        ticks * 10_000_000 / elapsed,
        if clock::tsc_hz() > 500_000_000 {
            10
        } else {
            900
        },
        1010,
    );
    cap(&guests);
    for guest in &guests {
        let _ = guest.suspend(0);
    }
    for guest in guests {
        destroy("weights", guest);
    }
}

/// The last child alone, held to a quarter of a processor.
fn cap(guests: &[Guest]) {
    let Some((last, others)) = guests.split_last() else {
        return;
    };
    for guest in others {
        need("cap: the others stop", guest.suspend(0));
    }
    need(
        "cap: a quarter of a processor",
        last.set_property(PropertyCode::CPU_CAP, 0x4000),
    );
    let moved = synic::sleep_until(PATIENCE, || true);
    check("cap: set", moved);
    synic::sleep(200_000);
    let rate = || {
        let (start, before) = (clock::reference(), last.read(COUNTER));
        synic::sleep(1_000_000);
        let work = last.read(COUNTER) - before;
        work * 10_000 / (clock::reference() - start).max(1)
    };
    let capped = rate();
    need("cap: none", last.set_property(PropertyCode::CPU_CAP, 0));
    let free = rate();
    within(
        "cap: its share in 1/1000",
        capped * 1000 / free.max(1),
        200,
        300,
    );
}
