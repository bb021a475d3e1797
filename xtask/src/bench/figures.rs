//! The figures that `cargo xtask bench` measures: what each is called, means and may cost.

mod child;
mod children;
mod exits;
mod parent;

/// Code lines of the privileged part, at most.
pub const CODE_LINES_MAX: u64 = 15_000;
/// Bytes of the hypervisor's image, code and data, at most.
pub const IMAGE_MAX: u64 = 512 * 1024;

/// A number of a peer on each machine, or words where it has no such number.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// KVM on Bochs SVM, and on Bochs VMX.
    Kvm(u64, u64),
    /// As it is.
    Words(&'static str),
    /// Not measured.
    None,
}

/// What belongs together, is run together, and has a section of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Exits that the hypervisor answers itself.
    Exits,
    /// What children cost.
    Children,
    /// Debian's boot in the parent.
    Boot,
    /// A Debian child: its boot, and what the hypervisor keeps for it.
    Child,
    /// A Debian child's requests to its disk.
    Storage,
    /// Bytes.
    Memory,
    /// Source text.
    Code,
}

impl Group {
    /// All, in the order of the page.
    pub const ALL: [Self; 7] = [
        Self::Exits,
        Self::Children,
        Self::Boot,
        Self::Child,
        Self::Storage,
        Self::Memory,
        Self::Code,
    ];

    /// Its figures with a text of their own. Those that name sections, uses of memory and exit reasons come from what was
    /// measured and are listed after them.
    pub const fn figures(self) -> &'static [Figure] {
        match self {
            Self::Exits => exits::FIGURES,
            Self::Children => children::FIGURES,
            Self::Boot => parent::BOOT,
            Self::Child => child::CHILD,
            Self::Storage => child::STORAGE,
            Self::Memory => parent::MEMORY,
            Self::Code => parent::CODE,
        }
    }

    /// The name that `--only` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exits => "exits",
            Self::Children => "children",
            Self::Boot => "boot",
            Self::Child => "child",
            Self::Storage => "storage",
            Self::Memory => "memory",
            Self::Code => "code",
        }
    }
}

/// One figure with a name that the page explains.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name, unique.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The most that it may be.
    pub budget: Option<u64>,
    /// What others take.
    pub peer: Peer,
    /// What it means to a user.
    pub meaning: &'static str,
}

impl Figure {
    const fn new(name: &'static str, unit: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            unit,
            budget: None,
            peer: Peer::None,
            meaning,
        }
    }

    const fn within(mut self, budget: u64) -> Self {
        self.budget = Some(budget);
        self
    }

    const fn beside(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }
}

/// All figures with a text of their own.
pub fn all() -> impl Iterator<Item = &'static Figure> {
    Group::ALL.into_iter().flat_map(|group| group.figures())
}
