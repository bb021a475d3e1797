//! Pages of statistics: what they show, and whose frames they are.

mod child;
mod own;

use addr::Gpn;
use machine::insn;
use machine::platform::Platform;
use machine::verdict::check;
use tlfs::call::*;
use tlfs::statistics::Index;
use tlfs::{CallCode, HvError};

use super::{need, refused};
use crate::arena::{self, FRAME};
use crate::client::call;
use crate::client::partition::{Child, USUAL, deposit_frames};
use crate::client::synic;
use crate::options::Options;
use child::{ends, partition, vp};
use own::{hypervisor, lps, own_vps};

/// How long a page may lag, in microseconds. The hypervisor writes it ten times a second.
const LAG: u64 = 2_000_000;
/// CPUID instructions that a VP executes to be counted.
const MANY: u64 = 1000;

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    hypervisor(platform);
    lps(platform);
    own_vps(platform);
    partition();
    vp();
    ends();
}

/// A page of statistics in a frame of ours.
pub struct Shown {
    object: StatsObject,
    /// Where it lies.
    pub page: u64,
}

fn map(object: StatsObject, page: u64) -> Result<(), HvError> {
    let input = MapStatsPage2 {
        object,
        page: Gpn::new(page / FRAME),
    };
    call::simple(CallCode::MAP_STATS_PAGE_2, &input.encode())
}

impl Shown {
    /// Maps the page of `of`.
    pub fn of(name: &str, of: StatsOf, area: StatsArea) -> Option<Self> {
        let shown = Self {
            object: StatsObject { of, area },
            page: arena::frame(),
        };
        need(
            format_args!("statistics: {name}: mapped"),
            map(shown.object, shown.page),
        )?;
        Some(shown)
    }

    /// A counter.
    pub fn get(&self, index: Index) -> u64 {
        insn::read_phys64(self.page + u64::from(index) * 8)
    }

    /// Waits until a counter is at least `value`.
    fn reaches(&self, index: Index, value: u64) -> bool {
        synic::sleep_until(LAG, || self.get(index) >= value)
    }

    /// Takes it away; the frame is the caller's again.
    pub fn unmap(&self) -> Result<(), HvError> {
        let input = StatsPage {
            object: self.object,
        };
        call::simple(CallCode::UNMAP_STATS_PAGE, &input.encode())
    }

    /// Unmaps it, and checks whose the frame is before and after.
    fn end(self, name: &str) {
        refused(
            format_args!("statistics: {name}: mapped twice"),
            map(self.object, self.page),
            HvError::OBJECT_IN_USE,
        );
        let Some(mut other) = need("statistics: another child", Child::create(USUAL)) else {
            return;
        };
        let deposit = |child: &Child| deposit_frames(child.id, &[self.page]).status;
        check(
            format_args!("statistics: {name}: the page is no deposit while it is shown"),
            deposit(&other).is_err(),
        );
        need(format_args!("statistics: {name}: unmapped"), self.unmap());
        refused(
            format_args!("statistics: {name}: unmapped twice"),
            self.unmap(),
            HvError::NOT_FOUND,
        );
        let given = deposit(&other);
        if need(format_args!("statistics: {name}: a deposit again"), given).is_some() {
            other.deposited.insert(self.page);
        }
        super::clean("statistics: the other child", other.destroy());
    }
}
