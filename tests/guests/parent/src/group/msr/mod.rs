//! Model-specific registers: the synthetic ones, and those of the processor that the hypervisor keeps virtual.

mod architectural;
mod synthetic;

use crate::options::Options;
use machine::platform::Platform;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    synthetic::run();
    architectural::run();
}
