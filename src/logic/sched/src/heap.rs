//! Leftist heaps of entities: every operation takes O(log n) time in the worst case, and any element can be removed.
//!
//! The rank of a node is 1 more than that of its right child, whose rank is never above the left one's. So a path of
//! right links has O(log n) nodes, and merging two heaps walks along two such paths.

use crate::entity::{Entities, Entity, EntityId, Node, before};

/// A heap by [`Node::key`], lowest first.
#[derive(Debug)]
pub(crate) struct Heap {
    root: u32,
    len: u32,
}

fn node(entities: &impl Entities, link: u32) -> Option<&Node> {
    entity(entities, link).map(|(_, entity)| &entity.node)
}

fn entity(entities: &impl Entities, link: u32) -> Option<(EntityId, &Entity)> {
    if link == Node::NONE {
        return None;
    }
    let id = EntityId(link);
    entities.get(id).map(|entity| (id, entity))
}

fn rank(entities: &impl Entities, link: u32) -> u32 {
    node(entities, link).map_or(0, |node| node.rank.get())
}

impl Heap {
    pub(crate) const EMPTY: Self = Self {
        root: Node::NONE,
        len: 0,
    };

    /// The element with the lowest key.
    pub(crate) fn first<'e>(&self, entities: &'e impl Entities) -> Option<(EntityId, &'e Entity)> {
        entity(entities, self.root)
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Adds `entity`, which is in no heap.
    pub(crate) fn insert(&mut self, id: EntityId, key: u64, entities: &impl Entities) {
        let Some(new) = node(entities, id.0) else {
            return;
        };
        new.key.set(key);
        new.rank.set(1);
        for link in [&new.parent, &new.left, &new.right] {
            link.set(Node::NONE);
        }
        self.root = merge(self.root, id.0, entities);
        self.len = self.len.saturating_add(1);
    }

    /// Takes out an element of this heap.
    pub(crate) fn remove(&mut self, id: EntityId, entities: &impl Entities) {
        let Some(old) = node(entities, id.0) else {
            return;
        };
        let above = old.parent.get();
        let rest = merge(old.left.get(), old.right.get(), entities);
        if let Some(rest) = node(entities, rest) {
            rest.parent.set(above);
        }
        match node(entities, above) {
            None => self.root = rest,
            Some(above) if above.left.get() == id.0 => above.left.set(rest),
            Some(above) => above.right.set(rest),
        }
        // Ranks change upwards for as long as the changed child decides: each step adds 1 to the rank that it leaves.
        let mut link = above;
        while let Some(above) = node(entities, link) {
            let before = above.rank.get();
            settle(above, entities);
            if above.rank.get() == before {
                break;
            }
            link = above.parent.get();
        }
        self.len = self.len.saturating_sub(1);
    }
}

/// Makes one heap of two; gives its root, which has no parent.
fn merge(mut a: u32, mut b: u32, entities: &impl Entities) -> u32 {
    let (mut root, mut last) = (Node::NONE, Node::NONE);
    loop {
        let (mut first, second) = (node(entities, a), node(entities, b));
        if let (Some(x), Some(y)) = (first, second)
            && before(y.key.get(), x.key.get())
        {
            core::mem::swap(&mut a, &mut b);
            first = second;
        } else if first.is_none() {
            core::mem::swap(&mut a, &mut b);
            first = second;
        }
        // `a` is the next of the path. When `b` is empty, `a` brings all that is left.
        if let Some(first) = first {
            first.parent.set(last);
        }
        match node(entities, last) {
            None => root = a,
            Some(last) => last.right.set(a),
        }
        let Some(first) = first.filter(|_| b != Node::NONE) else {
            break;
        };
        last = a;
        a = first.right.get();
    }
    while let Some(node) = node(entities, last) {
        settle(node, entities);
        last = node.parent.get();
    }
    root
}

/// Puts the child of higher rank left, and computes the rank.
fn settle(node: &Node, entities: &impl Entities) {
    let (left, right) = (node.left.get(), node.right.get());
    let (left_rank, right_rank) = (rank(entities, left), rank(entities, right));
    if left_rank < right_rank {
        node.left.set(right);
        node.right.set(left);
    }
    node.rank.set(left_rank.min(right_rank) + 1);
}
