//! The reference TSC page and the reference counter (TLFS, "Partition Reference Time").

use core::sync::atomic::{Ordering, fence};

use crate::group::hypercall::page::Page;
use crate::options::Options;
use machine::platform::Platform;
use machine::verdict::{check, equal, note, within};
use machine::{clock, insn};

const TIME_REF_COUNT: u32 = 0x4000_0020;
const REFERENCE_TSC: u32 = 0x4000_0021;
const TSC_FREQUENCY: u32 = 0x4000_0022;

const PATTERN: u64 = 0x1122_3344_5566_7788;
const SAMPLES: u32 = 1000;

static PAGE: Page = Page::new();

/// The time by the page, or `None` while it is not valid.
fn page_time() -> Option<u64> {
    loop {
        let sequence = PAGE.word(0) as u32;
        if sequence == 0 {
            return None;
        }
        fence(Ordering::SeqCst);
        let (scale, offset, tsc) = (PAGE.word(8), PAGE.word(16), insn::rdtsc());
        fence(Ordering::SeqCst);
        if PAGE.word(0) as u32 == sequence {
            let scaled = ((u128::from(tsc) * u128::from(scale)) >> 64) as u64;
            return Some(scaled.wrapping_add(offset));
        }
    }
}

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    if !check(
        "time: the reference counter answers",
        clock::has_reference(),
    ) {
        return;
    }
    PAGE.fill(PATTERN);
    insn::wrmsr(REFERENCE_TSC, PAGE.address() | 1);
    check("time: the page is valid", page_time().is_some());
    equal("time: reserved word", PAGE.word(0) >> 32, 0);
    check(
        "time: the rest of the page is zero",
        (24..4096).step_by(8).all(|offset| PAGE.word(offset) == 0),
    );

    let hz = insn::rdmsr(TSC_FREQUENCY);
    let wanted = ((10_000_000_u128 << 64) / u128::from(hz.max(1))) as u64;
    let slack = wanted / 100_000;
    within(
        "time: the scale is that of the frequency",
        PAGE.word(8),
        wanted - slack,
        wanted + slack,
    );
    agreement();

    insn::wrmsr(REFERENCE_TSC, PAGE.address());
    let (valid, kept) = (PAGE.word(0) as u32 != 0, PAGE.is_filled_with(PATTERN));
    note(format_args!(
        "page disabled: sequence valid {valid}, memory as before {kept}"
    ));
    insn::wrmsr(REFERENCE_TSC, PAGE.address() | 1);
    check("time: the page comes back", page_time().is_some());
    insn::wrmsr(REFERENCE_TSC, 0);
}

fn agreement() {
    let mut last = 0;
    let (mut outside, mut backwards, mut widest) = (0, 0, 0);
    for _ in 0..SAMPLES {
        let before = insn::rdmsr(TIME_REF_COUNT);
        let by_page = page_time().unwrap_or(0);
        let after = insn::rdmsr(TIME_REF_COUNT);
        outside += u64::from(by_page < before || by_page > after);
        backwards += u64::from(before < last);
        widest = widest.max(after.saturating_sub(before));
        last = after;
    }
    note(format_args!(
        "two counter reads are at most {widest} units of 100 ns apart"
    ));
    equal("time: the page agrees with the counter", outside, 0);
    equal("time: nothing goes back", backwards, 0);
}
