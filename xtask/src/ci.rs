//! `cargo xtask ci`: what CI runs, and nothing else, so that a red one can be had at a desk.

use std::time::Instant;

use anyhow::Result;

use crate::{lint, size, test};

/// Every check, in the order of what fails soonest.
pub fn run() -> Result<()> {
    let start = Instant::now();
    lint::run()?;
    size::run()?;
    let result = test::run(&test::Options::all());
    eprintln!("all of it took {} s", start.elapsed().as_secs());
    result
}
