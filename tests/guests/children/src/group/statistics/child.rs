//! The pages of a child and of its VPs.

use addr::VpIndex;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::register::RegisterName as N;
use tlfs::statistics::{self as n};

use super::{MANY, Shown};
use crate::arena;
use crate::child::code::{self, PORT};
use crate::child::guest::{Guest, Mode};
use crate::client::partition::{Child, RWX, USUAL, deposit_frames};
use crate::group::clean;
use crate::group::{destroy, need, stopped};

/// The page of a partition and of its pool.
pub fn partition() {
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
    clean("statistics: partition", child.destroy());
    frames.into_iter().for_each(arena::free);
}

/// The page of a VP, while it runs.
pub fn vp() {
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
pub fn ends() {
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
    clean("statistics: ends: the other child", other.destroy());
}
