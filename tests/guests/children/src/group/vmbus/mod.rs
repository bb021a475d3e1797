//! VMBus: the server of the parent, whose back end is the hypervisor, and those of children.

pub mod child;
pub mod conversation;
mod parent;

use machine::platform::Platform;

use crate::options::Options;

/// Runs the group.
pub fn run(_: &Options, _: &Platform) {
    parent::run();
    child::run();
}
