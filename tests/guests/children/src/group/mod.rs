//! The tests, by subject.

use core::fmt::Display;

use machine::platform::Platform;
use machine::verdict::{check, equal};
use tlfs::HvError;

use crate::child::code;
use crate::child::guest::Guest;
use crate::client::intercept::Intercept;
use crate::client::partition::Gone;
use crate::options::Options;

mod bench;
mod calls;
mod cycles;
mod enlighten;
mod hostile;
mod init;
mod intercepts;
mod life;
mod memory;
mod ports;
mod reset;
mod run;
mod slots;
mod smp;
mod starved;
mod statistics;
mod vmbus;
mod weights;

/// A group of tests.
pub struct Group {
    /// The word that asks for it.
    pub name: &'static str,
    /// Whether it runs when nothing is asked for.
    pub is_usual: bool,
    /// The function that runs it.
    pub run: fn(&Options, &Platform),
}

const fn group(name: &'static str, is_usual: bool, run: fn(&Options, &Platform)) -> Group {
    Group {
        name,
        is_usual,
        run,
    }
}

/// The groups in their order.
pub static GROUPS: [Group; 18] = [
    group("life", true, life::run),
    group("run", true, run::run),
    group("intercepts", true, intercepts::run),
    group("memory", true, memory::run),
    group("smp", true, smp::run),
    group("enlighten", true, enlighten::run),
    group("calls", true, calls::run),
    group("cycles", true, cycles::run),
    group("hostile", true, hostile::run),
    group("reset", true, reset::run),
    group("weights", false, weights::run),
    group("bench", false, bench::run),
    group("init", false, init::run),
    group("ports", true, ports::run),
    group("vmbus", true, vmbus::run),
    group("slots", true, slots::run),
    group("statistics", true, statistics::run),
    group("starved", true, starved::run),
];

/// The value of `result`; an error is a failed test.
fn need<T>(name: impl Display, result: Result<T, HvError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            check(format_args!("{name} # {error:?}"), false);
            None
        }
    }
}

/// Checks that `result` is the error `wanted`.
fn refused<T>(name: impl Display, result: Result<T, HvError>, wanted: HvError) -> bool {
    equal(name, crate::client::call::code(result), wanted.0.into())
}

/// Checks that `result` is any error.
fn fails<T>(name: impl Display, result: Result<T, HvError>) -> bool {
    let code = crate::client::call::code(result);
    if code == 0 {
        check(name, false)
    } else {
        check(format_args!("{name} ({code:#x})"), true)
    }
}

/// Destroys `guest` and checks that nothing is left.
fn destroy(name: impl Display, guest: Guest) {
    clean(name, guest.destroy());
}

fn clean(name: impl Display, gone: Gone) {
    if gone == Gone::CLEAN {
        check(format_args!("{name}: everything comes back"), true);
    } else {
        check(
            format_args!("{name}: everything comes back # {gone:x?}"),
            false,
        );
    }
}

/// Checks that a VP stopped at the end of its program.
fn stopped(name: impl Display, stop: Option<Intercept>) -> Option<Intercept> {
    stopped_by(name, stop, |intercept| intercept.is_out(code::STOP))
}

/// Checks that a VP stopped for something of type `kind`.
fn stopped_for(
    name: impl Display,
    stop: Option<Intercept>,
    kind: tlfs::MessageType,
) -> Option<Intercept> {
    stopped_by(name, stop, |intercept| intercept.kind == kind)
}

fn stopped_by(
    name: impl Display,
    stop: Option<Intercept>,
    is_wanted: impl Fn(&Intercept) -> bool,
) -> Option<Intercept> {
    match stop {
        Some(intercept) if is_wanted(&intercept) => {
            check(name, true);
            Some(intercept)
        }
        Some(intercept) => {
            check(format_args!("{name} # {intercept}"), false);
            None
        }
        None => {
            check(format_args!("{name} # no intercept in time"), false);
            None
        }
    }
}
