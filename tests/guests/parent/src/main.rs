//! test-parent
fn main() {}
