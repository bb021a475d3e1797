//! The register page: the parent's fast way to a VP's registers (TLFS, `HV_VP_REGISTER_PAGE`).
//!
//! The parent may write the page at any time. So it is filled from an image, and read into one before anything of it is
//! looked at.

use tlfs::HvError;
use tlfs::register::RegisterName as N;
use tlfs::state::register_page as page;
use vpcore::seam::Register;

use crate::bytes::{read, read_u32, write};
use crate::names::{Place, SEGMENTS};
use crate::registers::{Extended, Registers, Synthetic, decode_segment, encode_segment};
use crate::xsave;

/// Length of the part that this module fills: all but the list of vectors.
pub const BYTES: usize = page::XFEM + 8;

/// Classes that the parent can change.
const CLASSES: u32 = page::DIRTY_GENERAL
    | page::DIRTY_RIP
    | page::DIRTY_XMM
    | page::DIRTY_SEGMENTS
    | page::DIRTY_FLAGS;

/// The registers that the parent can change, beside the general ones, in the order of applying: place, bytes, class, first
/// name, count.
const FIELDS: [(usize, usize, u32, N, u32); 4] = [
    (page::RIP, 8, page::DIRTY_RIP, N::RIP, 1),
    (page::RFLAGS, 8, page::DIRTY_FLAGS, N::RFLAGS, 1),
    (page::XMM, 16, page::DIRTY_XMM, N::XMM0, SHOWN as u32),
    (
        page::SEGMENTS,
        16,
        page::DIRTY_SEGMENTS,
        N::ES,
        SHOWN as u32,
    ),
];

/// Registers of the page that are XMM registers, and as many are segments.
const SHOWN: usize = 6;

/// Those that the back end holds. The page is filled at every intercept, and to find registers by their names takes time.
const BACKEND: [(usize, Register); 8] = [
    (page::RIP, Register::Rip),
    (page::RFLAGS, Register::Rflags),
    (page::CONTROL, Register::Cr0),
    (page::CONTROL + 8, Register::Cr3),
    (page::CONTROL + 16, Register::Cr4),
    (page::CONTROL + 32, Register::Efer),
    (page::CONTROL + 40, Register::Dr7),
    (page::INTERRUPT_STATE, Register::InterruptState),
];

/// Others, by name. The hints of instruction emulation are always 0.
const OTHERS: [(usize, N); 3] = [
    (page::CONTROL + 24, N::CR8),
    (page::PENDING_INTERRUPTION, N::PENDING_INTERRUPTION),
    (page::XFEM, N::XFEM),
];

impl<E: Extended, S: Synthetic> Registers<'_, E, S> {
    /// The page as it is to be after an intercept: valid, nothing dirty.
    pub fn page(&mut self) -> [u8; BYTES] {
        let mut image = [0; BYTES];
        write(&mut image, page::VERSION, &page::VERSION_1.to_le_bytes());
        write(&mut image, page::IS_VALID, &[1]);
        for (index, value) in self.backend.gp().0.iter().enumerate() {
            write(&mut image, page::GENERAL + index * 8, &value.to_le_bytes());
        }
        for (at, register) in BACKEND {
            write(&mut image, at, &self.backend.get(register).to_le_bytes());
        }
        for (index, segment) in SEGMENTS.into_iter().take(SHOWN).enumerate() {
            let value = encode_segment(&self.backend.segment(segment));
            write(
                &mut image,
                page::SEGMENTS + index * 16,
                &value.to_le_bytes(),
            );
        }
        for index in 0..SHOWN {
            let value = xsave::get(self.extended.area(), self.layout, index);
            write(&mut image, page::XMM + index * 16, &value.to_le_bytes());
        }
        for (at, name) in OTHERS {
            // Each of these names exists.
            let value = self.get(name).unwrap_or(0) as u64;
            write(&mut image, at, &value.to_le_bytes());
        }
        image
    }

    /// Takes over what `image`, a copy of the page, marks dirty. The caller clears the dirty word in the page; a call
    /// with none costs nothing.
    ///
    /// # Errors
    /// [`HvError::INVALID_REGISTER_VALUE`] when a register cannot have its value, or a class is not known. Nothing was
    /// changed.
    pub fn apply_page(&mut self, image: &[u8; BYTES]) -> Result<(), HvError> {
        let dirty = read_u32(image, page::DIRTY);
        if dirty == 0 {
            return Ok(());
        }
        let fields = || {
            FIELDS
                .iter()
                .filter(|(_, _, class, ..)| dirty & class != 0)
                .flat_map(|&(at, bytes, _, first, count)| {
                    (0..count).map(move |index| {
                        let place = at + index as usize * bytes;
                        let value = if bytes == 8 {
                            u128::from(u64::from_le_bytes(read(image, place)))
                        } else {
                            u128::from_le_bytes(read(image, place))
                        };
                        (first.nth(index), value)
                    })
                })
        };
        let is_good =
            dirty & !CLASSES == 0 && fields().all(|(name, value)| self.accepts(name, value));
        if !is_good {
            return Err(HvError::INVALID_REGISTER_VALUE);
        }
        for (name, value) in fields() {
            // Checked above; none of these has an effect elsewhere.
            let _ = self.set(name, value);
        }
        if dirty & page::DIRTY_GENERAL != 0 {
            for (index, value) in self.backend.gp_mut().0.iter_mut().enumerate() {
                *value = u64::from_le_bytes(read(image, page::GENERAL + index * 8));
            }
        }
        Ok(())
    }

    /// Whether `set` would take `value` for a register of the page.
    fn accepts(&self, name: N, value: u128) -> bool {
        match Place::of(name) {
            Place::Backend(register) => self.limits.register(register, value as u64).is_some(),
            Place::Segment(segment) => self.limits.is_segment(segment, &decode_segment(value)),
            _ => true,
        }
    }
}
