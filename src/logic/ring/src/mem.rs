//! Where a ring lies.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use ring_proto::Control;

/// A control page, as words of 32 bits.
pub type ControlPage = [AtomicU32; 1024];
/// A page of the data area, as words of 64 bits.
pub type DataPage = [AtomicU64; 512];

/// The memory of one ring. The peer may change all of it at any time.
///
/// Every access is one load or store that the compiler neither splits nor repeats. Words of the data area are at
/// offsets that are multiples of 8 below [`data_bytes`](Self::data_bytes); at other offsets reads answer 0 and writes
/// do nothing.
pub trait RingMem {
    /// Size of the data area in bytes. Always the same.
    fn data_bytes(&self) -> u32;

    /// Loads a field of the control page; no later access passes before it (acquire).
    fn control(&self, field: Control) -> u32;

    /// Stores a field of the control page; no earlier access passes behind it (release).
    fn set_control(&self, field: Control, value: u32);

    /// Loads the word of the data area at offset `at`.
    fn word(&self, at: u32) -> u64;

    /// Stores the word of the data area at offset `at`.
    fn set_word(&self, at: u32, value: u64);

    /// A full barrier: stores before it are visible before loads after it are made.
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl<M: RingMem + ?Sized> RingMem for &M {
    fn data_bytes(&self) -> u32 {
        (**self).data_bytes()
    }
    fn control(&self, field: Control) -> u32 {
        (**self).control(field)
    }
    fn set_control(&self, field: Control, value: u32) {
        (**self).set_control(field, value);
    }
    fn word(&self, at: u32) -> u64 {
        (**self).word(at)
    }
    fn set_word(&self, at: u32, value: u64) {
        (**self).set_word(at, value);
    }
    fn fence(&self) {
        (**self).fence();
    }
}

fn load(page: &ControlPage, field: Control) -> u32 {
    page.get(field.word())
        .map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(page: &ControlPage, field: Control, value: u32) {
    if let Some(word) = page.get(field.word()) {
        word.store(value, Ordering::Release);
    }
}

/// A ring whose data area is one piece.
#[derive(Clone, Copy, Debug)]
pub struct Contiguous<'a> {
    control: &'a ControlPage,
    data: &'a [AtomicU64],
}

impl<'a> Contiguous<'a> {
    /// The ring of these two parts.
    pub const fn new(control: &'a ControlPage, data: &'a [AtomicU64]) -> Self {
        Self { control, data }
    }

    fn at(&self, at: u32) -> Option<&AtomicU64> {
        self.data.get(at as usize / 8)
    }
}

impl RingMem for Contiguous<'_> {
    fn data_bytes(&self) -> u32 {
        u32::try_from(size_of_val(self.data)).unwrap_or(u32::MAX)
    }
    fn control(&self, field: Control) -> u32 {
        load(self.control, field)
    }
    fn set_control(&self, field: Control, value: u32) {
        store(self.control, field, value);
    }
    fn word(&self, at: u32) -> u64 {
        self.at(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    fn set_word(&self, at: u32, value: u64) {
        if let Some(word) = self.at(at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// A ring in scattered pages, `P` being the list of those of its data area (a `Vec`, an array, a slice).
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a, P> {
    control: &'a ControlPage,
    pages: P,
}

impl<'a, P: AsRef<[&'a DataPage]>> Paged<'a, P> {
    /// The ring of this control page and these pages of data, in the order of the data area.
    pub const fn new(control: &'a ControlPage, pages: P) -> Self {
        Self { control, pages }
    }

    fn at(&self, at: u32) -> Option<&'a AtomicU64> {
        let at = at as usize;
        let page: &'a DataPage = self.pages.as_ref().get(at / size_of::<DataPage>())?;
        page.get(at % size_of::<DataPage>() / 8)
    }
}

impl<'a, P: AsRef<[&'a DataPage]>> RingMem for Paged<'a, P> {
    fn data_bytes(&self) -> u32 {
        let bytes = self
            .pages
            .as_ref()
            .len()
            .saturating_mul(size_of::<DataPage>());
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
    fn control(&self, field: Control) -> u32 {
        load(self.control, field)
    }
    fn set_control(&self, field: Control, value: u32) {
        store(self.control, field, value);
    }
    fn word(&self, at: u32) -> u64 {
        self.at(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    fn set_word(&self, at: u32, value: u64) {
        if let Some(word) = self.at(at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Makes the ring as it is when a channel opens, and clears its data: indices, masks and pending size 0. The
/// feature bits stay.
///
/// For a ring that nobody uses: the one who calls this knows that both ends are at rest.
pub fn reset(mem: &impl RingMem) {
    for at in (0..mem.data_bytes()).step_by(8) {
        mem.set_word(at, 0);
    }
    mem.set_control(Control::PendingSendSize, 0);
    mem.set_control(Control::InterruptMask, 0);
    mem.set_control(Control::Attended, 0);
    mem.set_control(Control::WriteIndex, 0);
    mem.set_control(Control::ReadIndex, 0);
    mem.fence();
}
