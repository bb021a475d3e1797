//! A guest's synthetic timers against the model of the crate's own tests.

use crate::target;

#[path = "../../../../src/logic/synic/tests/timers/mod.rs"]
mod timers;

target!(|story: timers::Story| { timers::run(&story) });
