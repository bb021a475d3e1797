//! Ids that are not used again, and many partitions at once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use addr::PartitionId;
use machine::verdict::{check, equal, note};
use tlfs::CallCode;

use super::fast;
use crate::client::partition::{
    Child, USUAL, children, create, create_input, next_child, with_own_pool,
};
use crate::group::{clean, need};

/// Generations that a slot is followed for.
const GENERATIONS: usize = 6;
/// Partitions at one time.
const MANY: usize = 64;

/// No id comes again.
pub fn ids() {
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

/// Many partitions at one time.
pub fn many() {
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
