//! Partitions' calls about ports and connections, with memory that runs out, against the model of the crate's own tests.

use crate::{Steps, target};

#[path = "../../../../src/logic/ports/tests/model/mod.rs"]
mod model;
#[path = "../../../../src/logic/ports/tests/pool/mod.rs"]
mod pool;

target!(|input: (u8, Steps<model::Step>)| {
    let (memory, Steps(steps)) = input;
    let count = steps.len().min(256);
    model::run(memory.into(), &steps[..count]);
});
