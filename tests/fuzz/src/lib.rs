//! Fuzz targets: what a child, a file or the other side of a shared page may say.
//!
//! A target is a function of bytes that panics when a rule is broken. `libfuzzer` feeds them what it thinks up, the test
//! `replay` what stands in `corpus`. See `README.md`.

mod image;
mod shared_ring;
mod steps;
pub mod targets;

pub use targets::TARGETS;

use image::Memory;
use shared_ring::{FIELDS, Ring};
use steps::Steps;

/// Set to anything, it has a target print what it took its bytes for.
pub const SHOW: &str = "FUZZ_SHOW";

/// Makes of bytes what a target wants. `None` when there are too few.
fn input_of<'a, T: arbitrary::Arbitrary<'a> + std::fmt::Debug>(bytes: &'a [u8]) -> Option<T> {
    let input = T::arbitrary_take_rest(arbitrary::Unstructured::new(bytes)).ok()?;
    static IS_SHOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *IS_SHOWN.get_or_init(|| std::env::var_os(SHOW).is_some()) {
        eprintln!("{input:#?}");
    }
    Some(input)
}

/// The function of a target's module. Written as libFuzzer's own macro is.
macro_rules! target {
    (|$input:ident: $type:ty| $body:block) => {
        /// Takes the bytes for what the module says, and panics when a rule is broken.
        pub fn run(bytes: &[u8]) {
            if let Some(input) = crate::input_of(bytes) {
                one(input);
            }
        }

        fn one($input: $type) $body
    };
}
use target;
