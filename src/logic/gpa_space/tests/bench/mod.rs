//! Table memory that can run out, overlays in a list, and a count of uses.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use addr::{Gpa, Gpn, Spa};
use gpa_space::{Below, GpaSpace, Overlays, Pending, SpaceError, State};
use paging::{Attributes, Backing, Format, Levels, Mapping, OutOfFrames, PageSize, TableMemory};

pub const K4: u64 = 4096;
pub const LARGE: u64 = 512;
pub const RAM: Attributes = Attributes::RWX.with_backing(Backing::Counted);

/// The address of the first frame for tables; the others follow.
const FRAMES: u64 = 0x000A_5A5A_5A5A_5000;

/// Live frames by their numbers from [`FRAMES`] on.
#[derive(Clone, Default)]
pub struct Frames(Vec<Option<Box<[u64; 512]>>>);

impl PartialEq for Frames {
    fn eq(&self, other: &Self) -> bool {
        // Numbers that were given and taken back are no difference.
        let live = |frames: &Self| {
            frames
                .0
                .iter()
                .rposition(Option::is_some)
                .map_or(0, |last| last + 1)
        };
        self.0[..live(self)] == other.0[..live(other)]
    }
}

impl Frames {
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&mut self, at: u64) -> Option<&mut Option<Box<[u64; 512]>>> {
        self.0.get_mut((at.checked_sub(FRAMES)? / K4) as usize)
    }

    fn get(&self, at: u64) -> Option<&[u64; 512]> {
        let slot = self.0.get((at.checked_sub(FRAMES)? / K4) as usize)?;
        slot.as_deref()
    }
}

#[derive(Clone, Default, PartialEq)]
pub struct Memory {
    pub frames: Frames,
    spare: Vec<u64>,
    /// Allocations that still succeed.
    pub budget: Option<u64>,
    /// Most frames that were ever in use.
    pub peak: usize,
}

impl TableMemory for Memory {
    fn load(&self, entry: Spa) -> u64 {
        let table = self.frames.get(entry.get());
        table.expect("load outside a live table")[entry.page_offset() / 8]
    }

    fn store(&mut self, entry: Spa, value: u64) {
        let table = self
            .frames
            .slot(entry.get())
            .and_then(Option::as_mut)
            .expect("store outside a live table");
        table[entry.page_offset() / 8] = value;
    }

    fn update(&mut self, entry: Spa, clear: u64, set: u64) -> u64 {
        let old = self.load(entry);
        self.store(entry, (old & !clear) | set);
        old
    }

    fn alloc(&mut self) -> Result<Spa, OutOfFrames> {
        if let Some(budget) = &mut self.budget {
            *budget = budget.checked_sub(1).ok_or(OutOfFrames)?;
        }
        let frame = self.spare.pop().unwrap_or_else(|| {
            self.frames.0.push(None);
            FRAMES + (self.frames.0.len() as u64 - 1) * K4
        });
        *self.frames.slot(frame).unwrap() = Some(Box::new([0; 512]));
        self.peak = self.peak.max(self.frames.len());
        Ok(Spa::new(frame))
    }

    fn free(&mut self, table: Spa) {
        self.frames
            .slot(table.get())
            .and_then(Option::take)
            .expect("free of a frame that is not live");
        self.spare.push(table.get());
    }
}

#[derive(Clone, Default)]
pub struct List(pub BTreeMap<u64, Below>);

impl Overlays for List {
    fn below(&mut self, page: Gpn) -> Option<&mut Below> {
        self.0.get_mut(&page.get())
    }
}

pub struct Bench {
    pub mem: Memory,
    pub space: GpaSpace,
    format: Format,
    pub overlays: List,
    pub pending: Box<Pending>,
    /// Uses of each frame.
    pub uses: BTreeMap<u64, u32>,
}

impl Bench {
    pub fn new(format: Format, levels: Levels, max_leaf: PageSize, has_marks: bool) -> Self {
        let mut mem = Memory::default();
        let root = mem.alloc().unwrap();
        Self {
            mem,
            space: GpaSpace::new(format, root, levels, max_leaf, has_marks),
            format,
            overlays: List::default(),
            pending: Box::new(Pending::new()),
            uses: BTreeMap::new(),
        }
    }

    fn count(&mut self, frame: u64, count: u64, step: i32) {
        for frame in frame..frame + count {
            let uses = self.uses.entry(frame).or_default();
            *uses = uses.checked_add_signed(step).expect("a use ended twice");
            if *uses == 0 {
                self.uses.remove(&frame);
            }
        }
    }

    /// Maps as a hypercall does: uses first, taken back on failure; once more after a flush when that is asked for.
    pub fn map(
        &mut self,
        page: u64,
        frame: u64,
        size: PageSize,
        attributes: Attributes,
    ) -> Result<(), SpaceError> {
        let target = Mapping {
            spa: Spa::new(frame * K4),
            size,
            attributes,
        };
        let counted = if attributes.backing == Backing::Counted {
            size.bytes() / K4
        } else {
            0
        };
        self.count(frame, counted, 1);
        let try_once = |bench: &mut Self| {
            bench.space.map(
                &mut bench.mem,
                &mut bench.overlays,
                Gpn::new(page),
                target,
                &mut bench.pending,
            )
        };
        let mut done = try_once(self);
        if done == Err(SpaceError::Full) {
            self.finish();
            done = try_once(self);
            assert_ne!(done, Err(SpaceError::Full), "an empty record is full");
        }
        if done.is_err() {
            self.count(frame, counted, -1);
        }
        done
    }

    pub fn map_4k(&mut self, page: u64, frame: u64) {
        self.map(page, frame, PageSize::Size4K, RAM).unwrap();
    }

    pub fn map_2m(&mut self, page: u64, frame: u64) {
        self.map(page, frame, PageSize::Size2M, RAM).unwrap();
    }

    /// One call to take access (or the pages) away; how many are done.
    pub fn sweep(&mut self, page: u64, pages: u64, declare: bool) -> Result<u64, SpaceError> {
        let Self {
            mem,
            space,
            overlays,
            pending,
            ..
        } = self;
        let page = Gpn::new(page);
        if declare {
            space.declare_no_access(mem, overlays, page, pages, pending)
        } else {
            space.unmap(mem, overlays, page, pages, pending)
        }
    }

    /// All of it, with a flush wherever one is needed to go on.
    pub fn sweep_all(&mut self, page: u64, pages: u64, declare: bool) {
        let mut done = 0;
        while done < pages {
            match self.sweep(page + done, pages - done, declare) {
                Ok(more) => {
                    assert!(more > 0);
                    done += more;
                }
                Err(SpaceError::Full) => {
                    assert!(!self.pending.is_empty(), "an empty record is full")
                }
                Err(error) => panic!("{error:?}"),
            }
            if done < pages {
                self.finish();
            }
        }
    }

    pub fn place(&mut self, page: u64, frame: u64) -> Result<(), SpaceError> {
        let is_new = !self.overlays.0.contains_key(&page);
        self.overlays.0.entry(page).or_default();
        let Self {
            mem,
            space,
            overlays,
            pending,
            ..
        } = self;
        let done = space.place(
            mem,
            overlays,
            Gpn::new(page),
            Spa::new(frame * K4),
            Attributes::RW,
            pending,
        );
        if done.is_err() && is_new {
            assert_eq!(self.overlays.0.remove(&page), Some(Below::default()));
        }
        done
    }

    pub fn remove(&mut self, page: u64) {
        let Self {
            mem,
            space,
            overlays,
            pending,
            ..
        } = self;
        let budget = mem.budget.replace(0);
        space
            .remove(mem, overlays, Gpn::new(page), pending)
            .unwrap();
        mem.budget = budget;
        assert_eq!(self.overlays.0.remove(&page), Some(Below::default()));
    }

    pub fn finish(&mut self) {
        let mut ended = Vec::new();
        self.space
            .finish(&mut self.mem, &mut self.pending, &mut |spa, count| {
                ended.push((spa, count))
            });
        assert!(self.pending.is_empty() && !self.pending.flush_needed());
        for (spa, count) in ended {
            self.count(spa.page().get(), count, -1);
        }
    }

    pub fn state(&self, page: u64) -> State {
        self.space.state(&self.mem, Gpa::new(page * K4))
    }

    /// Frame and leaf size of a mapped page.
    pub fn mapped(&self, page: u64) -> Option<(u64, PageSize)> {
        match self.state(page) {
            State::Mapped(mapping) => Some((mapping.spa.page().get(), mapping.size)),
            _ => None,
        }
    }

    /// The leaf that maps `page`, as the processor finds it.
    fn leaf(&self, page: u64) -> Option<Spa> {
        let mut table = self.space.root().get();
        let mut level = self.space.levels().count();
        loop {
            let at = table + ((page >> (9 * (level - 1))) & 511) * 8;
            let size = [
                None,
                Some(PageSize::Size4K),
                Some(PageSize::Size2M),
                Some(PageSize::Size1G),
            ];
            let size = size.get(level as usize).copied().flatten();
            match self.format.decode(self.mem.load(Spa::new(at)), size) {
                paging::Entry::Table(below) => (table, level) = (below.get(), level - 1),
                paging::Entry::Leaf(..) => return Some(Spa::new(at)),
                paging::Entry::Empty => return None,
            }
        }
    }

    /// The processor writes to `page` for the guest, if it may.
    pub fn write(&mut self, page: u64) -> bool {
        let allowed =
            matches!(self.state(page), State::Mapped(mapping) if mapping.attributes.write);
        if let (true, Some(at)) = (allowed, self.leaf(page)) {
            self.mem
                .update(at, 0, self.format.accessed() | self.format.dirty());
        }
        allowed
    }

    /// Every live frame is a table of the tree.
    pub fn check_tables(&self) {
        fn count(format: Format, mem: &Memory, table: u64, level: u32) -> usize {
            let size = [
                None,
                Some(PageSize::Size4K),
                Some(PageSize::Size2M),
                Some(PageSize::Size1G),
            ];
            let size = size.get(level as usize).copied().flatten();
            (0..512).fold(1, |sum, index| {
                match format.decode(mem.load(Spa::new(table + index * 8)), size) {
                    paging::Entry::Table(below) => sum + count(format, mem, below.get(), level - 1),
                    _ => sum,
                }
            })
        }
        let root = self.space.root().get();
        assert_eq!(
            count(self.format, &self.mem, root, self.space.levels().count()),
            self.mem.frames.len()
        );
    }

    /// Ends the space in pieces of `budget` and checks that everything came back.
    pub fn end(mut self, budget: u32) {
        let pages: Vec<u64> = self.overlays.0.keys().copied().collect();
        pages.into_iter().for_each(|page| self.remove(page));
        self.finish();
        loop {
            let mut ended = Vec::new();
            let done = self
                .space
                .release_all(&mut self.mem, budget, &mut |spa, count| {
                    ended.push((spa, count))
                });
            assert!(ended.len() <= budget as usize);
            for (spa, count) in ended {
                self.count(spa.page().get(), count, -1);
            }
            if done {
                break;
            }
        }
        assert_eq!(self.mem.frames.len(), 1);
        self.space.destroy(&mut self.mem);
        assert!(self.mem.frames.is_empty());
        assert!(self.uses.is_empty(), "uses left over: {:?}", self.uses);
    }
}
