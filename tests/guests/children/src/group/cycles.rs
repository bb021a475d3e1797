//! Children made, run and unmade, over and over: what goes in comes out, and nothing is left.

use addr::PartitionId;
use machine::platform::Platform;
use machine::verdict::{check, equal, note};
use machine::{clock, insn};
use tlfs::HvError;
use tlfs::call::{PARTITION_SELF, StatsArea, StatsOf};
use tlfs::register::RegisterName as N;

use super::need;
use super::statistics::Shown;
use crate::arena::{self, CHUNK, FRAME};
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::partition::{Child, Gone, RWX, USUAL, deposit_frames, own_frames};
use crate::client::vp::{PATIENCE, segment_value};
use crate::options::Options;

const SECRET: u64 = 0x5EC2_E75E_C2E7_5EC2;
/// A note this often.
const REPORT: u32 = 1000;

/// Runs the group.
pub fn run(options: &Options, _: &Platform) {
    let Some(books) = Books::open() else { return };
    // The first one may make the parent's own pool grow.
    let Some(first) = cycle() else { return };
    let own = own_frames();
    let before = books.read();
    let start = clock::reference();
    let mut bad = 0;
    let mut costs = (first, first);
    let mut done = 0;
    for n in 1..=options.cycles {
        match cycle() {
            Some(cost) => costs = (costs.0.min(cost), costs.1.max(cost)),
            None => bad += 1,
        }
        done = n;
        if bad > 3 {
            break;
        }
        if n % REPORT == 0 {
            note(format_args!("{n} cycles"));
        }
    }
    equal(
        format_args!("cycles: {} of them, each clean", options.cycles),
        (done - bad).into(),
        options.cycles.into(),
    );
    equal("cycles: each costs the same", costs.0, costs.1);
    equal(
        "cycles: the parent's own pool did not grow",
        own_frames(),
        own,
    );
    let each = (clock::reference() - start) / 10 / u64::from(options.cycles.max(1));
    note(format_args!("{each} us each, {} frames of pool", costs.1));
    isolation();
    before.compare("at the end", &books.read());
    shows(&books);
    before.compare("after one more child", &books.read());
    books.close();
}

/// What the hypervisor uses, and what the parent's second-level tables are made of. There are the pages of statistics
/// that say so.
struct Books {
    hypervisor: Shown,
    parent: Shown,
}

/// What they say.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    /// Frames that the hypervisor uses. All others of its block are free.
    used: u64,
    /// Leaves of the parent's tables: 4 KiB, 2 MiB, 1 GiB.
    leaves: [u64; 3],
}

impl Books {
    fn open() -> Option<Self> {
        Some(Self {
            hypervisor: Shown::of("cycles", StatsOf::Hypervisor, StatsArea::Own)?,
            parent: Shown::of("cycles", StatsOf::Partition(PARTITION_SELF), StatsArea::Own)?,
        })
    }

    /// As of the last call about a partition.
    fn read(&self) -> Sums {
        use tlfs::statistics::{hypervisor, partition as n};
        let sizes = [n::GPA_PAGES_4K, n::GPA_PAGES_2M, n::GPA_PAGES_1G];
        Sums {
            used: self.hypervisor.get(hypervisor::TOTAL_PAGES),
            leaves: sizes.map(|size| self.parent.get(size)),
        }
    }

    fn close(self) {
        for shown in [self.hypervisor, self.parent] {
            need("cycles: a page of statistics goes", shown.unmap());
            arena::free(shown.page);
        }
    }
}

impl Sums {
    fn compare(&self, when: &str, now: &Self) {
        equal(
            format_args!("cycles: frames that the hypervisor uses, {when}"),
            now.used,
            self.used,
        );
        for (n, size) in ["4 KiB", "2 MiB", "1 GiB"].into_iter().enumerate() {
            equal(
                format_args!("cycles: the parent's leaves of {size}, {when}"),
                now.leaves[n],
                self.leaves[n],
            );
        }
        note(format_args!("{when}: {now:?}"));
    }
}

/// A child that is there shows in the sums: they can tell.
fn shows(books: &Books) {
    let chunk = arena::chunk();
    let before = books.read();
    let Some(mut child) = need("cycles: one more child", Child::create(USUAL)) else {
        return;
    };
    let one = books.read();
    check(
        "cycles: a child is counted",
        one.used > before.used && one.leaves == before.leaves,
    );
    // Its large page, or the 1 GiB around it, is in pieces.
    let reply = deposit_frames(child.id, &[chunk]);
    need("cycles: a deposit", reply.status);
    child.deposited.insert(chunk);
    let split = books.read();
    let [small, large, huge] = split.leaves;
    let [smalls, larges, huges] = before.leaves;
    equal(
        "cycles: a large page in pieces",
        small.wrapping_sub(smalls),
        512,
    );
    check(
        "cycles: and one less whole, or 511 more of what was huge",
        (large.wrapping_add(1), huge) == (larges, huges)
            || (large.wrapping_sub(511), huge.wrapping_add(1)) == (larges, huges),
    );
    check("cycles: its table is counted", split.used > one.used);
    note(format_args!("with a child: {split:?}"));
    super::clean("cycles: the child", child.destroy());
    (1..CHUNK / FRAME).for_each(|n| arena::free(chunk + n * FRAME));
}

/// One child with 1 VP that runs sixteen bits of code; the frames it cost, or `None` after a failed test.
fn cycle() -> Option<u64> {
    let memory = arena::frames(4);
    let result = live(&memory);
    let cost = match result {
        Ok((cost, gone, ran)) => {
            if gone != Gone::CLEAN || !ran {
                check(format_args!("cycles: # ran {ran} {gone:x?}"), false);
                return None;
            }
            Some(cost)
        }
        Err(error) => {
            check(format_args!("cycles: # {error:?}"), false);
            None
        }
    };
    memory.iter().for_each(|frame| arena::free(*frame));
    cost
}

fn live(memory: &[u64]) -> Result<(u64, Gone, bool), HvError> {
    let mut child = Child::create(USUAL)?;
    child.initialize()?;
    child.map(0x1_0000, memory, RWX)?;
    child.create_vp(0)?;
    let bytes = code::bytes(code::out_16);
    for (n, piece) in bytes.chunks(8).enumerate() {
        let mut word = [0xF4; 8];
        word[..piece.len()].copy_from_slice(piece);
        insn::write_phys64(memory[0] + n as u64 * 8, u64::from_le_bytes(word));
    }
    insn::write_phys64(memory[3], SECRET);
    let cs = segment_value(&x86::Segment {
        base: 0x1_0000,
        limit: 0xFFFF,
        selector: 0x1000,
        attributes: 0x9B,
    });
    child.set(0, &[(N::CS, cs), (N::RIP, 0), (N::RFLAGS, 2)])?;
    let ran = child
        .run_for(0, PATIENCE)
        .is_some_and(|stop| stop.is_out(code::STOP));
    let cost = child.deposited.len() as u64;
    let gone = child.destroy();
    Ok((cost, gone, ran))
}

/// Nothing of a dead child shows in the next one, or in the parent.
fn isolation() {
    let Some(guest) = need("isolation: the first child", Guest::new(1)) else {
        return;
    };
    let (id, room) = (guest.id, guest.room);
    let pool: alloc::vec::Vec<u64> = guest.deposited.iter().copied().collect();
    super::destroy("isolation: the first", guest);
    check(
        "isolation: its pool is scrubbed",
        pool.iter().all(|frame| arena::is_filled(*frame, 0)),
    );
    insn::write_phys64(room + 0x9000, SECRET);
    let Some(mut next) = need("isolation: the next child", Guest::new(1)) else {
        return;
    };
    check("isolation: with another id", next.id != id);
    // What was mapped in the first is not in the second, unless it is mapped there.
    let away = 0x60_0000;
    let registers = [(N(N::RAX.0 + 6), away)];
    need(
        "isolation: start",
        next.start(0, Mode::Long, code::read_rsi, &registers),
    );
    let stop = next.run(0);
    super::stopped_for(
        "isolation: unmapped is unmapped",
        stop,
        tlfs::MessageType::UNMAPPED_GPA,
    );
    let old = crate::client::vp::get_registers(PartitionId::new(id.get()), 0, &[N::RAX]);
    super::refused(
        "isolation: the first one's VP is gone",
        old,
        HvError::INVALID_PARTITION_ID,
    );
    super::destroy("isolation: the next", next);
}
