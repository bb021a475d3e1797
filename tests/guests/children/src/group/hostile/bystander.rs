//! The child beside the hostile one, and frames of the parent that nobody may change.

use alloc::vec::Vec;

use machine::verdict::{check, equal};

use crate::arena;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Random, Shared};
use crate::client::synic;
use crate::client::vp::PATIENCE;
use crate::group::{destroy, need};

const CANARY: u64 = 0xCA4A_4C1E_55AA_1234;
/// Frames of the parent that nobody else may change.
const CANARIES: usize = 64;

/// A child that computes, beside a hostile one.
pub struct Bystander {
    guest: Guest,
    canaries: Vec<u64>,
}

/// Adds up a long row of numbers again and again; each sum must be the same.
extern "sysv64" fn compute(shared: &'static Shared) -> ! {
    loop {
        let mut random = Random(99);
        let mut sum = 0_u64;
        for n in 0..512_u64 {
            let value = random.next();
            runtime::write(layout::DATA + n * 8, value);
            sum = sum.wrapping_add(runtime::read(layout::DATA + n * 8).rotate_left(n as u32 & 63));
        }
        if shared.result(1) == 0 {
            shared.set(1, sum);
        }
        if shared.result(1) != sum {
            shared.set(2, shared.result(2) + 1);
        }
        shared.set(0, shared.result(0) + 1);
    }
}

impl Bystander {
    /// Starts it.
    pub fn new() -> Option<Self> {
        let mut guest = need("hostile: a bystander", Guest::new(1))?;
        need("hostile: it computes", guest.start_entry(0, compute, &[]))?;
        need("hostile: it runs", guest.resume(0))?;
        let canaries = arena::frames(CANARIES);
        for frame in &canaries {
            arena::fill(*frame, arena::FRAME, CANARY);
        }
        Some(Self { guest, canaries })
    }

    /// Sums that it has computed.
    pub fn rounds(&self) -> u64 {
        self.guest.shared(0).result(0)
    }

    /// What must hold after each hostile program.
    pub fn check(&self, name: &str, before: u64) {
        let shared = self.guest.shared(0);
        let went_on = synic::sleep_until(PATIENCE, || self.rounds() > before);
        check(format_args!("{name}: the bystander goes on"), went_on);
        equal(
            format_args!("{name}: its results are right"),
            shared.result(2),
            0,
        );
        let changed = self
            .canaries
            .iter()
            .filter(|frame| !arena::is_filled(**frame, CANARY))
            .count();
        equal(
            format_args!("{name}: frames of the parent that changed"),
            changed as u64,
            0,
        );
    }

    /// Ends it, and gives the frames back.
    pub fn end(self) {
        let _ = self.guest.suspend(0);
        destroy("bystander", self.guest);
        self.canaries.iter().for_each(|frame| arena::free(*frame));
    }
}
