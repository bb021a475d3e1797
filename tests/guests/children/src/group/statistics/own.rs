//! The pages of the hypervisor, of the processors and of the parent's own VPs.

use addr::{LpIndex, VpIndex};
use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal};
use tlfs::HvError;
use tlfs::call::*;
use tlfs::statistics::{self as n};

use super::{MANY, Shown, map};
use crate::arena;
use crate::child::guest::Guest;
use crate::group::{destroy, need, refused};

/// The hypervisor's own page.
pub fn hypervisor(platform: &Platform) {
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

/// A page for each processor.
pub fn lps(platform: &Platform) {
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

/// Pages of the parent's own VPs.
pub fn own_vps(platform: &Platform) {
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
