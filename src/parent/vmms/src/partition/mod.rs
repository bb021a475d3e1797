//! Making a partition and taking it apart: the order of calls, and who pays.

mod make;
#[cfg(test)]
mod tests;
mod unmake;

use addr::Gpa;

pub use make::{Plan, Supply, deposit_more, make};
pub use unmake::{unmake, withdraw_all};

/// Address of a frame of the parent. Its GPA space is that of the machine.
const fn address(frame: u64) -> Gpa {
    Gpa::new(frame * 4096)
}
