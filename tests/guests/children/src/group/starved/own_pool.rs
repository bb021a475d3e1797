//! The parent's own pool is empty: queues of its ports have taken it, and the rest went into partitions.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use machine::verdict::{check, equal, note};
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use crate::arena::{self, CHUNK, FRAME};
use crate::child::guest::Guest;
use crate::client::call;
use crate::client::partition::{USUAL, children, create, create_input, deposit_frames};
use crate::client::port;
use crate::group::{need, refused};

const NONE: HvError = HvError::INSUFFICIENT_MEMORY;
const PATTERN: u64 = 0x0123_4567_89AB_CDEF;
/// The first of the ports that empty the pool, and the most that it takes.
const FIRST: u32 = 0x100;
const PORTS: u32 = 0x1000;
/// The most partitions that are made of the rest.
const REST: usize = 64;

/// Runs this part of the group; `guest` is the only child.
pub fn run(guest: &mut Guest) {
    let make = |number| port::create(PARTITION_SELF, number, PARTITION_SELF, port::message(3));
    let delete = |number| port::delete(PARTITION_SELF, number);
    // Its frames tell where the parent's memory is in small pages already.
    need("own pool: a frame for the child", guest.deposit(1));
    let mut end = FIRST;
    let last = loop {
        match make(end) {
            Ok(()) if end < FIRST + PORTS => end += 1,
            result => break result,
        }
    };
    refused("own pool: ports empty it", last, NONE);
    refused(
        "own pool: the last port is not there",
        delete(end),
        HvError::INVALID_PORT_ID,
    );
    let partition = || create(&create_input(USUAL));
    let mut rest = Vec::new();
    let last = loop {
        match partition() {
            Ok(id) if rest.len() < REST => rest.push(id),
            result => break result,
        }
    };
    refused("own pool: and partitions the rest", last, NONE);
    equal(
        "own pool: the last partition is not there",
        children().len() as u64,
        rest.len() as u64 + 1,
    );
    super::unpaid::run(guest, "no own pool");
    connections(guest);
    let chunk = arena::chunk();
    arena::fill(chunk, FRAME, PATTERN);
    let reply = deposit_frames(guest.id, &[chunk]);
    refused("own pool: a deposit that needs a table", reply.status, NONE);
    equal("own pool: it took nothing", reply.done.into(), 0);
    arena::fill(chunk + FRAME, FRAME, PATTERN);
    check(
        "own pool: the frame is the parent's",
        [chunk, chunk + FRAME]
            .iter()
            .all(|frame| arena::is_filled(*frame, PATTERN)),
    );
    // One frame more, and it goes; another, and so does a partition.
    feed_own(guest);
    let reply = deposit_frames(guest.id, &[chunk]);
    need("own pool: with memory the deposit goes", reply.status);
    guest.deposited.insert(chunk);
    feed_own(guest);
    rest.extend(need("own pool: and a partition", partition()));
    let gone = rest
        .iter()
        .filter(|id| call::fast(CallCode::DELETE_PARTITION, id.get(), 0).is_ok())
        .count();
    equal(
        "own pool: the partitions go",
        gone as u64,
        rest.len() as u64,
    );
    let gone = (FIRST..end).filter(|port| delete(*port).is_ok()).count();
    equal(
        "own pool: the ports go",
        gone as u64,
        u64::from(end - FIRST),
    );
    note(format_args!(
        "own pool: {} ports, {} partitions",
        end - FIRST,
        rest.len()
    ));
    let mut refusals = 0;
    for number in FIRST..end {
        refusals += u64::from(make(number).is_err());
    }
    equal("own pool: there is room for them again", refusals, 0);
    for number in FIRST..end {
        need("own pool: deleted", delete(number));
    }
    // The chunk's first frame comes back with the pool; the others are free.
    (1..CHUNK / FRAME).for_each(|n| arena::free(chunk + n * FRAME));
}

/// Connections of the parent, until the last one wants a frame.
fn connections(guest: &Guest) {
    let connect = |number| {
        let kind = ConnectionKind::Message;
        port::connect(PARTITION_SELF, number, PARTITION_SELF, FIRST, kind)
    };
    let disconnect = |number| port::disconnect(PARTITION_SELF, number, false);
    let mut end = FIRST;
    let last = loop {
        match connect(end) {
            Ok(()) if end < FIRST + PORTS => end += 1,
            result => break result,
        }
    };
    refused("own pool: a connection that needs a frame", last, NONE);
    refused(
        "own pool: it is not there",
        disconnect(end),
        HvError::INVALID_CONNECTION_ID,
    );
    let mut result = last;
    for _ in 0..2 {
        if result == Err(NONE) {
            feed_own(guest);
            result = connect(end);
        }
    }
    need("own pool: with memory it is", result);
    let gone = (FIRST..=end).filter(|n| disconnect(*n).is_ok()).count();
    equal(
        "own pool: the connections go",
        gone as u64,
        u64::from(end - FIRST) + 1,
    );
}

/// Gives one frame to the parent's own pool: from where its memory is in small pages, since there is no table to split a
/// large one.
fn feed_own(guest: &Guest) {
    let chunks: BTreeSet<u64> = guest.deposited.iter().map(|frame| frame / CHUNK).collect();
    let mut others = Vec::new();
    let found = loop {
        let frame = arena::frame();
        if chunks.contains(&(frame / CHUNK)) {
            break Some(frame);
        }
        others.push(frame);
        if others.len() > 2048 {
            break None;
        }
    };
    others.into_iter().for_each(arena::free);
    let Some(frame) = found else {
        check("own pool: a frame beside the child's", false);
        return;
    };
    let reply = deposit_frames(PARTITION_SELF, &[frame]);
    need("own pool: a frame more", reply.status);
}
