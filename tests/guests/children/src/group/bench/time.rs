//! How late the parent's timer is.

use machine::verdict::{check, note};
use machine::{clock, cpu, insn};
use tlfs::msr;

use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need};
use tlfs::register::RegisterName as N;

const RUNS: u64 = 100;
/// Vector of synthetic timer 1.
const VECTOR: u8 = 0xCE;
/// Until the timer is due, in units of 100 ns; no multiple of the tick's period.
const AHEAD: u64 = 3_331;

/// `timer-late-idle`, where nobody else runs, and `timer-late-busy`, beside a child that never stops.
pub fn run() {
    late("idle");
    let Some(mut guest) = need("bench: a child", Guest::new(1)) else {
        return;
    };
    need("bench: spins", guest.start(0, Mode::Long, code::spin, &[]));
    let counter = layout::DATA + 0x800;
    need("bench: counter", guest.set_one(0, N::RAX.nth(7), counter));
    need("bench: goes", guest.resume(0));
    late("busy");
    need("bench: stands", guest.suspend(0));
    check("bench: the child had its time", guest.read(counter) != 0);
    destroy("bench: timer", guest);
}

/// Ticks from the moment for which a synthetic timer was set to the first instructions of its handler.
fn late(name: &str) {
    let per_unit = clock::tsc_hz() / 10_000_000;
    let config = msr::STIMER0_CONFIG + 2;
    // One shot, armed by its count, direct mode.
    insn::wrmsr(config, 0b1000 | u64::from(VECTOR) << 4 | 1 << 12);
    let (mut sum, mut worst, mut come) = (0, 0, 0);
    for n in 0..RUNS {
        let before = cpu::this().count(VECTOR);
        let start = insn::rdtsc();
        let now = clock::reference();
        // The clock was read in the middle of this, about.
        let now_ticks = start + (insn::rdtsc() - start) / 2;
        // Different places between two ticks of this program's clock.
        let ahead = AHEAD + n * 37;
        insn::wrmsr(config + 1, now + ahead);
        if !synic::sleep_until(PATIENCE, || cpu::this().count(VECTOR) != before) {
            break;
        }
        let due = now_ticks + ahead * per_unit;
        let ticks = cpu::this().stamp(VECTOR).saturating_sub(due);
        (sum, worst, come) = (sum + ticks, ticks.max(worst), come + 1);
    }
    insn::wrmsr(config, 0);
    if check(format_args!("bench: timers, {name}"), come == RUNS) {
        note(format_args!("bench timer-late-{name} {}", sum / RUNS));
        note(format_args!("bench timer-late-{name}-worst {worst}"));
    }
}
