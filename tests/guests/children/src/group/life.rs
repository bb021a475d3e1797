//! The life of a partition, and what goes into its pool and comes out.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use addr::PartitionId;
use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal, note, within};
use tlfs::call::*;
use tlfs::property::{PropertyCode, SyntheticFeatures};
use tlfs::{CallCode, HvError};

use super::{clean, fails, need, refused};
use crate::arena::{self, FRAME};
use crate::client::call::{self, code};
use crate::client::partition::{
    Child, Gone, RWX, USUAL, children, create, create_input, deposit_frames, next_child,
    with_own_pool, withdraw_frames,
};
use crate::options::Options;

const PATTERN: u64 = 0xA5A5_5A5A_C3C3_3C3C;
/// Generations that a slot is followed for.
const GENERATIONS: usize = 6;
/// Partitions at one time.
const MANY: usize = 64;

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    states();
    properties();
    pool();
    refused_frames(platform);
    whole_chunk();
    costs();
    ids();
    many();
}

fn fast(call: CallCode, id: PartitionId) -> Result<(), HvError> {
    call::fast(call, id.get(), 0)
}

fn create_vp(child: &Child) -> Result<(), HvError> {
    let input = CreateVp {
        partition: child.id,
        ..CreateVp::default()
    };
    call::simple(CallCode::CREATE_VP, &input.encode())
}

fn states() {
    const STATE: HvError = HvError::INVALID_PARTITION_STATE;
    equal(
        "life: there is no child at first",
        children().len() as u64,
        0,
    );
    let Some(mut child) = need("life: a partition is created", Child::create(USUAL)) else {
        return;
    };
    let id = child.id;
    check(
        "life: its id is neither none, nor all, nor the parent's",
        !matches!(id.get(), 0 | 1 | u64::MAX),
    );
    check("life: it is the one child", children() == [id]);
    refused(
        "life: a VP before it is initialized",
        create_vp(&child),
        STATE,
    );
    fails(
        "life: memory before it is initialized",
        child.map_once(0, &[arena::frame()], RWX).status,
    );
    need("life: it is initialized", child.initialize());
    refused(
        "life: but not twice",
        fast(CallCode::INITIALIZE_PARTITION, id),
        STATE,
    );
    refused(
        "life: it cannot be deleted while it lives",
        fast(CallCode::DELETE_PARTITION, id),
        STATE,
    );
    need("life: a VP is created", child.create_vp(0));
    let again = child.feed(create_vp);
    fails("life: but not twice", again);
    need(
        "life: it is finalized",
        fast(CallCode::FINALIZE_PARTITION, id),
    );
    refused("life: no VP after that", create_vp(&child), STATE);
    fails("life: no registers after that", child.resume(0));
    // Linux unmaps after that, and ignores the answer.
    let _ = child.unmap_once(0, 1, UnmapFlags::empty());
    let early = fast(CallCode::DELETE_PARTITION, id);
    fails(
        "life: it cannot be deleted while its pool has frames",
        early,
    );
    let mut gone = Gone::default();
    child.withdraw_all(&mut gone);
    gone.delete = code(fast(CallCode::DELETE_PARTITION, id));
    clean("life: the first child", gone);
    for (name, code) in [
        ("initialize", CallCode::INITIALIZE_PARTITION),
        ("finalize", CallCode::FINALIZE_PARTITION),
        ("delete", CallCode::DELETE_PARTITION),
    ] {
        refused(
            format_args!("life: {name} of one that is gone"),
            fast(code, id),
            HvError::INVALID_PARTITION_ID,
        );
    }
    check("life: nobody is listed any more", children().is_empty());
    // Created, never initialized.
    if let Some(child) = need("life: another is created", Child::create(USUAL)) {
        clean("life: one that was never initialized", child.destroy());
    }
    for id in [0, 1, 2, u64::MAX, 1 << 63, id.get() ^ 1 << 40] {
        let result = fast(CallCode::FINALIZE_PARTITION, PartitionId::new(id));
        fails(format_args!("life: partition {id:#x} is no child"), result);
    }
}

fn properties() {
    let Some(mut child) = need("properties: create", Child::create(USUAL)) else {
        return;
    };
    let all = SyntheticFeatures::ASSIGNABLE.bits();
    let features = PropertyCode::SYNTHETIC_FEATURES;
    need(
        "properties: features can be set early",
        child.set_property(features, all & !0x200),
    );
    equal(
        "properties: and read back",
        child.property(features).unwrap_or(0),
        all & !0x200,
    );
    need("properties: set back", child.set_property(features, all));
    need("properties: initialize", child.initialize());
    fails(
        "properties: features are fixed later",
        child.set_property(features, 3),
    );
    refused(
        "properties: an unknown one is not read",
        child.property(PropertyCode(0x7777)),
        HvError::UNKNOWN_PROPERTY,
    );
    refused(
        "properties: nor written",
        child.set_property(PropertyCode(0x7777), 0),
        HvError::UNKNOWN_PROPERTY,
    );
    for (name, code) in [
        ("processor features 0", PropertyCode::PROCESSOR_FEATURES_0),
        ("processor features 1", PropertyCode::PROCESSOR_FEATURES_1),
        ("xsave features", PropertyCode::XSAVE_FEATURES),
        ("xsave states", PropertyCode::XSAVE_STATES),
        ("xsave size", PropertyCode::MAX_XSAVE_DATA_SIZE),
        ("reference time", PropertyCode::REFERENCE_TIME),
        ("vendor", PropertyCode::PROCESSOR_VENDOR),
        ("address width", PropertyCode::PHYSICAL_ADDRESS_WIDTH),
        ("weight", PropertyCode::CPU_WEIGHT),
        ("cap", PropertyCode::CPU_CAP),
    ] {
        let value = need(
            format_args!("properties: {name} is read"),
            child.property(code),
        );
        note(format_args!("{name} {:#x}", value.unwrap_or(0)));
    }
    let size = child.property(PropertyCode::MAX_XSAVE_DATA_SIZE);
    within(
        "properties: the xsave area fits in a page",
        size.unwrap_or(0),
        576,
        4096,
    );
    let action = PropertyCode::UNIMPLEMENTED_MSR_ACTION;
    need(
        "properties: unimplemented MSRs can be dropped",
        child.set_property(action, 1),
    );
    refused(
        "properties: 2 is no such action",
        child.set_property(action, 2),
        HvError::PROPERTY_VALUE_OUT_OF_RANGE,
    );
    need(
        "properties: time can be frozen",
        child.set_property(PropertyCode::TIME_FREEZE, 1),
    );
    let first = child.property(PropertyCode::REFERENCE_TIME);
    machine::clock::spin(2000);
    check(
        "properties: a frozen clock stands",
        first.is_ok() && child.property(PropertyCode::REFERENCE_TIME) == first,
    );
    need(
        "properties: and thawed",
        child.set_property(PropertyCode::TIME_FREEZE, 0),
    );
    let ex = |code, id| {
        let input = GetPropertyEx {
            partition: id,
            code,
            ..GetPropertyEx::default()
        };
        call::ask::<16>(CallCode::GET_PARTITION_PROPERTY_EX, &input.encode())
    };
    let capabilities = ex(PropertyCode::VMM_CAPABILITIES, PARTITION_SELF);
    check(
        "properties: capabilities of the VMM have one bank",
        capabilities.is_ok_and(|bytes| bytes[0] == 1 && bytes[8] & 2 != 0),
    );
    let assignable = ex(PropertyCode::ASSIGNABLE_SYNTHETIC_FEATURES, PARTITION_SELF);
    check(
        "properties: what can be assigned",
        assignable.is_ok_and(|bytes| bytes[8..] == all.to_le_bytes()),
    );
    clean("properties", child.destroy());
}

fn pool() {
    let Some(mut child) = need("pool: create", Child::create(USUAL)) else {
        return;
    };
    let frames = arena::frames(511);
    for frame in &frames {
        arena::fill(*frame, FRAME, PATTERN);
    }
    let reply = deposit_frames(child.id, &frames);
    equal("pool: 511 frames in one call", reply.code(), 0);
    equal("pool: all of them", reply.done.into(), 511);
    child.deposited.extend(&frames);
    check(
        "pool: a deposited frame reads as zero",
        frames
            .iter()
            .all(|frame| insn::read_phys64(*frame + 8) == 0),
    );
    insn::write_phys64(frames[7] + 8, PATTERN);
    let (reply, out) = withdraw_frames(child.id, 100);
    equal("pool: 100 come out", reply.code(), 0);
    equal("pool: exactly", out.len() as u64, 100);
    let set: BTreeSet<u64> = out.iter().copied().collect();
    check(
        "pool: all different, and all deposited before",
        set.len() == 100 && set.is_subset(&child.deposited),
    );
    check(
        "pool: and scrubbed",
        out.iter().all(|frame| arena::is_filled(*frame, 0)),
    );
    insn::write_phys64(out[0], PATTERN);
    equal(
        "pool: they are the parent's again",
        insn::read_phys64(out[0]),
        PATTERN,
    );
    let twice = [out[0], out[0], out[1]];
    let reply = deposit_frames(child.id, &twice);
    check(
        "pool: the same frame twice is refused at the second",
        reply.status.is_err() && reply.done == 1,
    );
    note(format_args!("status {:#x}", reply.code()));
    let reply = deposit_frames(child.id, &[out[0]]);
    check(
        "pool: and in a call of its own",
        reply.status.is_err() && reply.done == 0,
    );
    for frame in &out[1..] {
        child.deposited.remove(frame);
        arena::free(*frame);
    }
    need("pool: initialize", child.initialize());
    need("pool: a VP", child.create_vp(0));
    let mut gone = Gone::default();
    child.withdraw_all(&mut gone);
    equal(
        "pool: a living child gives back what is free",
        gone.withdraw,
        0x1D,
    );
    equal("pool: and nothing else", gone.foreign + gone.dirty, 0);
    check("pool: but not what is used", gone.missing != 0);
    clean("pool", child.destroy());
}

/// Page numbers that are nobody's to give.
fn refused_frames(platform: &Platform) {
    let Some(mut child) = need("frames: create", Child::initialized(USUAL)) else {
        return;
    };
    let mut list: Vec<(&str, u64)> = alloc::vec![
        ("the local APIC", 0xFEE0_0000),
        ("an I/O APIC", 0xFEC0_0000),
        ("beyond memory", 1 << 45),
        ("beyond addresses", 0xFFFF_FFFF_FFFF_F000),
    ];
    if let Some(area) = platform.diagnostics {
        list.push(("the diagnostics area", area.start));
    }
    if let Some(block) = platform
        .reserved()
        .iter()
        .find(|range| range.start % (2 << 20) == 0 && range.len >= 2 << 20)
    {
        list.push(("the hypervisor", block.start + 0x1000));
        list.push(("the hypervisor's end", block.start + block.len - FRAME));
    }
    list.push(("the hypercall page", call::page()));
    list.push(("the message page", insn::rdmsr(tlfs::msr::SIMP) & !0xFFF));
    for (name, frame) in &list {
        let reply = deposit_frames(child.id, &[*frame]);
        check(
            format_args!("frames: {name} is not deposited ({:#x})", reply.code()),
            reply.status.is_err() && reply.done == 0,
        );
    }
    for (name, frame) in &list {
        // Devices can be mapped uncached; no other use of these is right.
        if matches!(*name, "the local APIC" | "an I/O APIC") {
            continue;
        }
        let reply = loop {
            let reply = child.map_once(0x10_0000, &[*frame], RWX);
            if reply.status != Err(HvError::INSUFFICIENT_MEMORY) || child.deposit(1).is_err() {
                break reply;
            }
        };
        let is_overlay = matches!(*name, "the hypercall page" | "the message page");
        if is_overlay {
            note(format_args!("mapping {name}: {:#x}", reply.code()));
            let _ = child.unmap(0x10_0000, 1);
            continue;
        }
        check(
            format_args!("frames: {name} is not mapped ({:#x})", reply.code()),
            reply.status.is_err() && reply.done == 0,
        );
    }
    clean("frames", child.destroy());
}

fn whole_chunk() {
    let Some(mut child) = need("chunk: create", Child::create(USUAL)) else {
        return;
    };
    let chunk = arena::chunk();
    arena::fill(chunk, arena::CHUNK, PATTERN);
    let frames: Vec<u64> = (0..512).map(|n| chunk + n * FRAME).collect();
    for part in frames.chunks(256) {
        equal(
            "chunk: half of 2 MiB goes in",
            deposit_frames(child.id, part).code(),
            0,
        );
    }
    child.deposited.extend(&frames);
    let (mut out, mut order) = (BTreeSet::new(), 0);
    loop {
        let (reply, frames) = withdraw_frames(child.id, 512);
        order += frames.len();
        out.extend(frames);
        if reply.status.is_err() {
            break;
        }
    }
    check(
        "chunk: 2 MiB come back",
        order == 512 && out == child.deposited,
    );
    check(
        "chunk: empty",
        frames.iter().all(|frame| arena::is_filled(*frame, 0)),
    );
    child.deposited.clear();
    arena::free_chunk(chunk);
    clean("chunk", child.destroy());
}

fn costs() {
    let Some(mut child) = need("costs: create", Child::create(USUAL)) else {
        return;
    };
    need("costs: initialize", child.initialize());
    let partition = child.deposited.len() as u64;
    within("costs: frames of a partition", partition, 0, 207);
    need("costs: VP", child.create_vp(0));
    let vp = child.deposited.len() as u64 - partition;
    within("costs: frames of a VP", vp, 1, 89);
    let before = child.deposited.len() as u64;
    let chunk = arena::chunk();
    let large = child.map(0, &[chunk], RWX | MapFlags::LARGE);
    need("costs: 2 MiB", large);
    let map = child.deposited.len() as u64 - before;
    note(format_args!("bench frames-partition {partition}"));
    note(format_args!("bench frames-vp {vp}"));
    note(format_args!("bench frames-first-2MiB {map}"));
    within("costs: a child of 1 VP", (partition + vp + map) * 4, 0, 256);
    clean("costs", child.destroy());
    arena::free_chunk(chunk);
}

fn ids() {
    let mut seen = BTreeSet::new();
    for _ in 0..GENERATIONS {
        let Some(child) = need("ids: create", Child::create(USUAL)) else {
            return;
        };
        seen.insert(child.id.get());
        clean("ids", child.destroy());
    }
    equal(
        "ids: none comes again soon",
        seen.len() as u64,
        GENERATIONS as u64,
    );
}

fn many() {
    let mut list = Vec::new();
    for _ in 0..MANY {
        let input = create_input(USUAL);
        match with_own_pool(|| create(&input)) {
            Ok(id) => list.push(id),
            Err(error) => {
                check(format_args!("many: create # {error:?}"), false);
                break;
            }
        }
    }
    let listed = children();
    let (wanted, got): (BTreeSet<_>, BTreeSet<_>) = (
        list.iter().map(|id| id.get()).collect(),
        listed.iter().map(|id| id.get()).collect(),
    );
    check(
        "many: each is listed once",
        wanted == got && listed.len() == MANY,
    );
    // One that was deleted since has followers all the same.
    let after = next_child(PartitionId::new(0xDEAD_BEEF_0000));
    note(format_args!("after one that there is not: {after:x?}"));
    let gone = list
        .iter()
        .filter(|id| fast(CallCode::DELETE_PARTITION, **id).is_ok())
        .count();
    equal("many: all are deleted", gone as u64, MANY as u64);
}
