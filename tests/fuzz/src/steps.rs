//! Steps one after the other.

use arbitrary::{Arbitrary, Result, Unstructured};

/// Bytes that a step is made of, whether it needs them or not.
const STEP_BYTES: usize = 16;

/// As many steps as there are bytes for, each from bytes of its own. So a step that is put in, taken out or changed leaves the
/// others as they are, and any bytes are a long story: a `Vec` ends where a bit says so, with random ones after the second.
#[derive(Debug)]
pub struct Steps<T>(pub Vec<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Steps<T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut steps = Vec::new();
        while !u.is_empty() {
            let bytes = u.bytes(u.len().min(STEP_BYTES))?;
            steps.push(T::arbitrary(&mut Unstructured::new(bytes))?);
        }
        Ok(Self(steps))
    }
}
