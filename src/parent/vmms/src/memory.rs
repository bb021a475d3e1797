//! Memory of a child, with the holder before the hypervisor learns of it.

use std::os::fd::AsFd;

use ram::{Block, FRAMES, HUGE_PAGE, RamError};
use worker_link::{pages, stop_point};

use crate::holder::{Holder, HolderError};
use crate::partition::Supply;

/// Most blocks of one pool: what a child can make the hypervisor need is bounded, and so is what it gets.
const POOL_BLOCKS_MAX: usize = 64;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// There are too few huge pages, or they cannot be pinned.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// They cannot be kept.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// Files of the holder that should be there are not.
    #[error("the holder has no {0}")]
    Missing(String),
    /// No such number of VPs.
    #[error("vps = {0}: that many VPs are not possible")]
    Vps(u32),
    /// The pool has had all that it gets.
    #[error("the pool has {POOL_BLOCKS_MAX} blocks of 2 MiB, which must be enough")]
    TooMuch,
}

/// The name of a set of child `name`'s files with the holder.
pub fn set(name: &str, what: &str) -> String {
    format!("{}/{what}", owner(name))
}

/// What the names of all sets of child `name` begin with.
pub fn owner(name: &str) -> String {
    format!("child/{name}")
}

/// All memory that a child has of the parent.
#[derive(Debug)]
pub struct Memory {
    /// Its RAM.
    pub ram: Block,
    /// The pages that hypervisor and worker share.
    pub pages: Block,
    /// What the hypervisor's tables lie in.
    pub pool: Pool,
}

impl Memory {
    /// Memory for child `name`.
    ///
    /// # Errors
    /// [`MemoryError`]. What the holder has of it is found by its name.
    pub fn allocate(
        holder: &Holder,
        name: &str,
        bytes: u64,
        vps: u32,
    ) -> Result<Self, MemoryError> {
        let pages_bytes = pages::file_bytes(vps).ok_or(MemoryError::Vps(vps))? as u64;
        Ok(Self {
            ram: keep(holder, &set(name, "ram"), bytes)?,
            pages: keep(holder, &set(name, "pages"), pages_bytes)?,
            pool: Pool::new(holder, &owner(name)),
        })
    }

    /// The memory that a daemon before this one left with the holder.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn adopt(holder: &Holder, name: &str) -> Result<Self, MemoryError> {
        Ok(Self {
            ram: adopted(holder, &set(name, "ram"))?,
            pages: adopted(holder, &set(name, "pages"))?,
            pool: Pool::adopt(holder, &owner(name))?,
        })
    }
}

/// Blocks for a pool: of a child, or of the parent itself.
#[derive(Debug)]
pub struct Pool {
    holder: Holder,
    name: String,
    blocks: Vec<Block>,
}

impl Pool {
    /// The pool of `name`, empty.
    pub fn new(holder: &Holder, name: &str) -> Self {
        Self {
            holder: holder.clone(),
            name: name.to_owned(),
            blocks: Vec::new(),
        }
    }

    /// The pool of `name` with what a daemon before this one left of it.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn adopt(holder: &Holder, name: &str) -> Result<Self, MemoryError> {
        let mut pool = Self::new(holder, name);
        while pool.adopt_one()? {}
        Ok(pool)
    }

    /// Frames that it has handed out.
    pub const fn frames(&self) -> u64 {
        self.blocks.len() as u64 * FRAMES
    }

    fn next_name(&self) -> String {
        format!("{}/pool{}", self.name, self.blocks.len())
    }

    fn grow(&mut self) -> Result<Vec<u64>, MemoryError> {
        if self.blocks.len() >= POOL_BLOCKS_MAX {
            return Err(MemoryError::TooMuch);
        }
        let block = keep(&self.holder, &self.next_name(), HUGE_PAGE)?;
        let frames = frames(&block).collect();
        self.blocks.push(block);
        Ok(frames)
    }

    /// Takes over the next block that a daemon before this one left. Whether there was one.
    fn adopt_one(&mut self) -> Result<bool, MemoryError> {
        match adopted(&self.holder, &self.next_name()) {
            Err(MemoryError::Missing(_)) => Ok(false),
            block => {
                self.blocks.push(block?);
                Ok(true)
            }
        }
    }
}

impl Supply for Pool {
    fn more(&mut self) -> Result<Vec<u64>, String> {
        self.grow().map_err(|error| error.to_string())
    }
}

fn frames(block: &Block) -> impl Iterator<Item = u64> + '_ {
    let large = block.frames().iter();
    large.flat_map(|first| *first..*first + FRAMES)
}

/// A new block, with the holder.
fn keep(holder: &Holder, name: &str, bytes: u64) -> Result<Block, MemoryError> {
    let block = Block::allocate(name, bytes)?;
    stop_point("vmms:allocated");
    // Closed in this order.
    holder.put(name, &[block.pin(), block.file().as_fd()])?;
    Ok(block)
}

fn adopted(holder: &Holder, name: &str) -> Result<Block, MemoryError> {
    let mut files = holder.get(name)?.into_iter();
    match (files.next(), files.next()) {
        (Some(pin), Some(file)) => Ok(Block::adopt(file, pin)?),
        _ => Err(MemoryError::Missing(name.to_owned())),
    }
}

/// Has the holder close all memory of child `name`. The hypervisor has let go of it.
///
/// # Errors
/// [`HolderError`].
pub fn release(holder: &Holder, name: &str) -> Result<(), HolderError> {
    let prefix = set(name, "");
    for kept in holder.names()? {
        if kept.starts_with(&prefix) {
            holder.drop_set(&kept)?;
        }
    }
    Ok(())
}
