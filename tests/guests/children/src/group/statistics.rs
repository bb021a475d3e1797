//! Pages of statistics: what they show, and whose frames they are.

use addr::{Gpn, LpIndex, VpIndex};
use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::statistics::{self as n, Index};
use tlfs::{CallCode, HvError};

use super::{destroy, need, refused, stopped};
use crate::arena::{self, FRAME};
use crate::child::code::{self, PORT};
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::partition::{Child, RWX, USUAL, deposit_frames};
use crate::client::synic;
use crate::options::Options;

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
struct Shown {
    object: StatsObject,
    page: u64,
}

fn map(object: StatsObject, page: u64) -> Result<(), HvError> {
    let input = MapStatsPage2 {
        object,
        page: Gpn::new(page / FRAME),
    };
    call::simple(CallCode::MAP_STATS_PAGE_2, &input.encode())
}

impl Shown {
    fn of(name: &str, of: StatsOf, area: StatsArea) -> Option<Self> {
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

    fn get(&self, index: Index) -> u64 {
        insn::read_phys64(self.page + u64::from(index) * 8)
    }

    /// Waits until a counter is at least `value`.
    fn reaches(&self, index: Index, value: u64) -> bool {
        synic::sleep_until(LAG, || self.get(index) >= value)
    }

    fn unmap(&self) -> Result<(), HvError> {
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

fn hypervisor(platform: &Platform) {
    let of = StatsOf::Hypervisor;
    refused(
        "statistics: hypervisor: it has no parent",
        map(
            StatsObject {
                of,
                area: StatsArea::Parent,
            },
            arena::frame(),
        ),
        HvError::INVALID_PARAMETER,
    );
    let Some(shown) = Shown::of("hypervisor", of, StatsArea::Own) else {
        return;
    };
    let own = Shown::of(
        "the parent",
        StatsOf::Partition(PARTITION_SELF),
        StatsArea::Own,
    );
    let lps = platform.processors().len() as u64;
    equal(
        "statistics: hypervisor: LPs",
        shown.get(n::hypervisor::LOGICAL_PROCESSORS),
        lps,
    );
    equal(
        "statistics: hypervisor: partitions",
        shown.get(n::hypervisor::PARTITIONS),
        1,
    );
    check(
        "statistics: hypervisor: pages",
        shown.get(n::hypervisor::TOTAL_PAGES) > 64,
    );
    let Some(guest) = need("statistics: hypervisor: a child", Guest::new(3)) else {
        return;
    };
    equal(
        "statistics: hypervisor: with a child",
        shown.get(n::hypervisor::PARTITIONS),
        2,
    );
    equal(
        "statistics: hypervisor: VPs",
        shown.get(n::hypervisor::VIRTUAL_PROCESSORS),
        lps + 3,
    );
    if let Some(own) = own {
        equal(
            "statistics: the parent: its child",
            own.get(n::partition::ACTIVE_CHILD_PARTITIONS),
            1,
        );
        destroy("statistics: hypervisor", guest);
        equal(
            "statistics: the parent: no child",
            own.get(n::partition::ACTIVE_CHILD_PARTITIONS),
            0,
        );
        own.end("the parent");
    }
    equal(
        "statistics: hypervisor: without",
        shown.get(n::hypervisor::VIRTUAL_PROCESSORS),
        lps,
    );
    shown.end("hypervisor");
}

fn lps(platform: &Platform) {
    let count = platform.processors().len() as u32;
    refused(
        "statistics: an LP that there is not",
        map(
            StatsObject {
                of: StatsOf::Lp(LpIndex::new(count)),
                area: StatsArea::Own,
            },
            arena::frame(),
        ),
        HvError::INVALID_LP_INDEX,
    );
    for lp in 0..count {
        let Some(shown) = Shown::of("LP", StatsOf::Lp(LpIndex::new(lp)), StatsArea::Own) else {
            return;
        };
        let has_begun = shown.reaches(n::lp::GLOBAL_TIME, 1);
        check(format_args!("statistics: LP {lp}: time"), has_begun);
        let then = shown.get(n::lp::GLOBAL_TIME);
        check(
            format_args!("statistics: LP {lp}: time goes on"),
            shown.reaches(n::lp::GLOBAL_TIME, then + 1),
        );
        let (time, ran) = (
            shown.get(n::lp::GLOBAL_TIME),
            shown.get(n::lp::TOTAL_RUN_TIME),
        );
        check(
            format_args!("statistics: LP {lp}: it ran for a part of that"),
            ran > 0 && ran <= time,
        );
        equal(
            format_args!("statistics: LP {lp}: its VP"),
            shown.get(n::lp::ROOT_VP_INDEX),
            lp.into(),
        );
        if lp == 0 {
            shown.end("LP 0");
        } else {
            need("statistics: LP: unmapped", shown.unmap());
            arena::free(shown.page);
        }
    }
}

fn own_vps(platform: &Platform) {
    let none = VpIndex::new(platform.processors().len() as u32);
    refused(
        "statistics: a VP of the parent that there is not",
        map(
            StatsObject {
                of: StatsOf::Vp(PARTITION_SELF, none),
                area: StatsArea::Own,
            },
            arena::frame(),
        ),
        HvError::INVALID_VP_INDEX,
    );
    let of = StatsOf::Vp(PARTITION_SELF, VpIndex::new(0));
    let Some(shown) = Shown::of("own VP", of, StatsArea::Own) else {
        return;
    };
    check(
        "statistics: own VP: calls",
        shown.reaches(n::vp::HYPERCALLS, 1),
    );
    let before = shown.get(n::vp::CPUID_INSTRUCTIONS);
    for _ in 0..MANY {
        insn::cpuid(0, 0);
    }
    check(
        "statistics: own VP: CPUID",
        shown.reaches(n::vp::CPUID_INSTRUCTIONS, before + MANY),
    );
    check(
        "statistics: own VP: no more of them than there were",
        shown.get(n::vp::CPUID_INSTRUCTIONS) < before + MANY + 200,
    );
    check(
        "statistics: own VP: run time",
        shown.get(n::vp::TOTAL_RUN_TIME) > 0,
    );
    check(
        "statistics: own VP: it fed pools",
        shown.get(n::vp::DEPOSIT_HYPERCALLS) > 0,
    );
    shown.end("own VP");
}

fn partition() {
    let Some(mut child) = need("statistics: partition: a child", Child::initialized(USUAL)) else {
        return;
    };
    let of = StatsOf::Partition(child.id);
    let areas = [StatsArea::Own, StatsArea::Parent];
    let [Some(own), Some(parents)] = areas.map(|area| Shown::of("partition", of, area)) else {
        return;
    };
    equal(
        "statistics: partition: which",
        own.get(n::partition::PARTITION_ID),
        child.id.get(),
    );
    equal(
        "statistics: partition: deposited",
        own.get(n::partition::DEPOSITED_PAGES),
        child.deposited.len() as u64,
    );
    let frames = arena::frames(3);
    need(
        "statistics: partition: three pages",
        child.map(0x1000, &frames, RWX),
    );
    need("statistics: partition: a VP", child.create_vp(0));
    equal(
        "statistics: partition: pages",
        own.get(n::partition::GPA_PAGES),
        3,
    );
    equal(
        "statistics: partition: VPs",
        own.get(n::partition::VIRTUAL_PROCESSORS),
        1,
    );
    equal(
        "statistics: partition: deposited for them",
        own.get(n::partition::DEPOSITED_PAGES),
        child.deposited.len() as u64,
    );
    equal(
        "statistics: partition: the other area says the same",
        parents.get(n::partition::GPA_PAGES),
        3,
    );
    need(
        "statistics: partition: one page less",
        child.unmap(0x1000, 1),
    );
    equal(
        "statistics: partition: pages left",
        own.get(n::partition::GPA_PAGES),
        2,
    );
    own.end("partition");
    parents.end("partition, for the parent");
    super::clean("statistics: partition", child.destroy());
    frames.into_iter().for_each(arena::free);
}

fn vp() {
    let Some(mut guest) = need("statistics: VP: a child", Guest::new(1)) else {
        return;
    };
    let of = StatsOf::Vp(guest.id, VpIndex::new(0));
    let Some(shown) = Shown::of("VP", of, StatsArea::Own) else {
        return;
    };
    equal(
        "statistics: VP: no time before it ran",
        shown.get(n::vp::TOTAL_RUN_TIME),
        0,
    );
    need(
        "statistics: VP: start",
        guest.start(0, Mode::Long, code::cpuid_loop, &[]),
    );
    stopped("statistics: VP: CPUID", guest.run(0));
    check(
        "statistics: VP: a message about a port",
        shown.reaches(n::vp::IO_INTERCEPT_MESSAGES, 1),
    );
    for (name, index, wanted) in [
        ("CPUID", n::vp::CPUID_INSTRUCTIONS, MANY),
        ("accesses to ports", n::vp::IO_INSTRUCTIONS, 1),
        ("messages about ports", n::vp::IO_INTERCEPT_MESSAGES, 1),
        ("messages about memory", n::vp::MEMORY_INTERCEPT_MESSAGES, 0),
        ("calls", n::vp::HYPERCALLS, 0),
        ("MSRs", n::vp::MSR_ACCESSES, 0),
    ] {
        equal(
            format_args!("statistics: VP: {name}"),
            shown.get(index),
            wanted,
        );
    }
    let ran = shown.get(n::vp::TOTAL_RUN_TIME);
    check("statistics: VP: it ran", ran > 0);
    need(
        "statistics: VP: a read of no memory",
        guest.start(
            0,
            Mode::Long,
            code::read_rsi,
            &[(N(N::RAX.0 + 6), 0x40_0000)],
        ),
    );
    check("statistics: VP: it stops", guest.run(0).is_some());
    check(
        "statistics: VP: a message about memory",
        shown.reaches(n::vp::MEMORY_INTERCEPT_MESSAGES, 1),
    );
    check(
        "statistics: VP: time has gone on, and turns",
        shown.get(n::vp::TOTAL_RUN_TIME) >= ran
            && shown.get(n::vp::LOGICAL_PROCESSOR_DISPATCHES) >= 2,
    );
    shown.end("VP");
    destroy("statistics: VP", guest);
}

/// A partition ends with its pages mapped.
fn ends() {
    let Some(mut guest) = need("statistics: ends: a child", Guest::new(1)) else {
        return;
    };
    let of_vp = StatsOf::Vp(guest.id, VpIndex::new(0));
    let (Some(vp), Some(whole)) = (
        Shown::of("ends: VP", of_vp, StatsArea::Parent),
        Shown::of(
            "ends: partition",
            StatsOf::Partition(guest.id),
            StatsArea::Parent,
        ),
    ) else {
        return;
    };
    need(
        "statistics: ends: start",
        guest.start(0, Mode::Long, code::out_loop, &[]),
    );
    check(
        "statistics: ends: it stops",
        guest.run(0).is_some_and(|stop| stop.is_out(PORT)),
    );
    destroy("statistics: ends", guest);
    let Some(mut other) = need("statistics: ends: another child", Child::create(USUAL)) else {
        return;
    };
    for page in [vp.page, whole.page] {
        let given = deposit_frames(other.id, &[page]).status;
        if need("statistics: ends: the page is the parent's again", given).is_some() {
            other.deposited.insert(page);
        }
    }
    super::clean("statistics: ends: the other child", other.destroy());
}
