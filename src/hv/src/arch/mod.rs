//! Everything that names the processor.
pub mod x86;
