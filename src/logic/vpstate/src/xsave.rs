//! The XSAVE image of a VP: single registers in it, and the whole of it in the compacted format of HvCallGetVpState.
//!
//! The hardware's own image may have either format; XCOMP_BV tells. What enters an image from outside is checked so
//! that XRSTOR of the whole image, made with all of [`Layout::states`] enabled in XCR0, cannot fault.
//!
//! Source: SDM vol. 1, "XSAVE-Managed State", "Standard Form of XRSTOR", "Compacted Form of XRSTOR".

use vpcore::child_cpuid::STATE_COMPONENTS;
use x86::cpuid::CpuidResult;

use crate::bytes::{copy, fill_zero, read, read_u32, read_u64, write};

const FCW: usize = 0;
const FDP: usize = 16;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const ST0: usize = 32;
const XMM0: usize = 160;
const XMM_END: usize = 416;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
/// End of the XSAVE header; the part that must be zero begins after XCOMP_BV.
const HEADER_END: usize = 576;

const COMPACTED: u64 = 1 << 63;
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const FCW_INITIAL: u16 = 0x37F;
const MXCSR_INITIAL: u32 = 0x1F80;
/// FpControlStatus: the byte behind the abridged tag.
const RESERVED_BYTE: u128 = 0xFF << 40;
/// What an x87 register fills of its 16 bytes.
const LOW_80: u128 = (1 << 80) - 1;
/// Components beside x87 and SSE that a table has room for: 2 to 9.
const SLOTS: usize = 10;

/// Where the components lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    components: [Component; SLOTS],
    states: u64,
    mxcsr_mask: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Component {
    /// In the standard format.
    offset: usize,
    size: usize,
    /// Begins at a multiple of 64 in the compacted format.
    is_aligned: bool,
}

/// An image is shorter than what it has to hold, or holds what XRSTOR refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadImage;

impl Layout {
    /// The layout by leaf 0xD of `cpuid` (leaf, subleaf), the processor's or the partition's. `mxcsr_mask` is the one
    /// that FXSAVE stores; 0 stands for 0xFFBF.
    pub fn of(cpuid: impl Fn(u32, u32) -> CpuidResult, mxcsr_mask: u32) -> Self {
        let main = cpuid(0xD, 0);
        let states = (u64::from(main.eax) | u64::from(main.edx) << 32) & STATE_COMPONENTS;
        let mut components = [Component::default(); SLOTS];
        for (index, component) in (0_u32..).zip(&mut components).skip(2) {
            if states >> index & 1 != 0 {
                let leaf = cpuid(0xD, index);
                // Sizes and offsets of real components are far below; nothing here can overflow then.
                *component = Component {
                    offset: (leaf.ebx & 0xFFFF) as usize,
                    size: (leaf.eax & 0xFFFF) as usize,
                    is_aligned: leaf.ecx & 2 != 0,
                };
            }
        }
        Self {
            components,
            states: states | X87 | SSE,
            mxcsr_mask: if mxcsr_mask == 0 { 0xFFBF } else { mxcsr_mask },
        }
    }

    /// The components that exist: partition property 0x60007.
    pub const fn states(&self) -> u64 {
        self.states
    }

    /// Bytes of a compacted image of `states`: partition property 0x60008 for all of them.
    pub fn compacted_bytes(&self, states: u64) -> usize {
        self.place(states | COMPACTED, SLOTS)
    }

    /// Offset of component `index` in an image with this XCOMP_BV; behind the last component for `SLOTS`.
    fn place(&self, xcomp: u64, index: usize) -> usize {
        if xcomp & COMPACTED == 0 {
            let end = || {
                self.components
                    .iter()
                    .map(|c| c.offset + c.size)
                    .max()
                    .unwrap_or(0)
            };
            return self
                .components
                .get(index)
                .map_or_else(|| end().max(HEADER_END), |c| c.offset);
        }
        let mut at = HEADER_END;
        for (number, component) in self.components.iter().enumerate().skip(2) {
            if component.is_aligned && xcomp >> number & 1 != 0 {
                at = at.next_multiple_of(64);
            }
            if number == index {
                break;
            }
            if xcomp >> number & 1 != 0 {
                at += component.size;
            }
        }
        at
    }

    /// Copies the components `states` of one image into another; both have them by their XCOMP_BV.
    fn transfer(&self, states: u64, from: (&[u8], u64), to: (&mut [u8], u64)) {
        for (index, component) in self.components.iter().enumerate().skip(2) {
            if states >> index & 1 != 0 {
                let (source, target) = (self.place(from.1, index), self.place(to.1, index));
                copy(from.0, source, to.0, target, component.size);
            }
        }
    }

    /// Writes the state in `image` to `out` in the compacted format, with room for `states` (those that do not exist
    /// are left out). Returns its length in bytes.
    ///
    /// # Errors
    /// One of the two is too short. Nothing was written.
    pub fn export(&self, image: &[u8], states: u64, out: &mut [u8]) -> Result<usize, BadImage> {
        let xcomp = states & self.states | COMPACTED;
        let own = read_u64(image, XCOMP_BV);
        let bytes = self.place(xcomp, SLOTS);
        if image.len() < self.place(own, SLOTS) {
            return Err(BadImage);
        }
        let out = out.get_mut(..bytes).ok_or(BadImage)?;
        out.fill(0);
        let source = Reader(image);
        let mut held = read_u64(image, XSTATE_BV) & xcomp;
        source.legacy(held, out);
        // In this format MXCSR is part of the SSE state.
        if source.mxcsr() != MXCSR_INITIAL {
            held |= SSE & xcomp;
        }
        write(out, MXCSR_MASK, &self.mxcsr_mask.to_le_bytes());
        write(out, XSTATE_BV, &held.to_le_bytes());
        write(out, XCOMP_BV, &xcomp.to_le_bytes());
        self.transfer(held, (image, own), (out, xcomp));
        Ok(bytes)
    }

    /// Replaces the state in `image` by the one in `input`, of either format. The format of `image` stays.
    ///
    /// # Errors
    /// `input` holds what XRSTOR refuses, or one of the two is too short. Nothing was changed.
    pub fn import(&self, input: &[u8], image: &mut [u8]) -> Result<(), BadImage> {
        let (held, xcomp) = (read_u64(input, XSTATE_BV), read_u64(input, XCOMP_BV));
        let present = if xcomp & COMPACTED != 0 {
            xcomp & !COMPACTED
        } else {
            self.states
        };
        let is_standard_or_compacted = xcomp == 0 || xcomp & COMPACTED != 0;
        let reserved = input.get(XCOMP_BV + 8..HEADER_END).ok_or(BadImage)?;
        let own = if read_u64(image, XCOMP_BV) & COMPACTED != 0 {
            self.states | COMPACTED
        } else {
            0
        };
        let source = Reader(input);
        let is_good = is_standard_or_compacted
            && present & !self.states == 0
            && held & !present == 0
            && reserved.iter().all(|&byte| byte == 0)
            && source.mxcsr() & !self.mxcsr_mask == 0
            && input.len() >= self.place(if xcomp == 0 { held | COMPACTED } else { xcomp }, SLOTS)
            && input.len() >= if xcomp == 0 { self.end_of(held) } else { 0 }
            && image.len() >= self.place(own, SLOTS);
        if !is_good {
            return Err(BadImage);
        }
        fill_zero(image, 0..HEADER_END);
        source.legacy(held, image);
        let sse = if source.mxcsr() == MXCSR_INITIAL {
            0
        } else {
            SSE
        };
        write(image, XSTATE_BV, &(held | sse).to_le_bytes());
        write(image, XCOMP_BV, &own.to_le_bytes());
        self.transfer(held, (input, xcomp), (image, own));
        Ok(())
    }

    /// End of the last of `states` in the standard format.
    fn end_of(&self, states: u64) -> usize {
        let ends = self
            .components
            .iter()
            .enumerate()
            .filter(|(n, _)| states >> n & 1 != 0);
        ends.map(|(_, c)| c.offset + c.size)
            .max()
            .unwrap_or(0)
            .max(HEADER_END)
    }
}

/// What an image says, components in their initial state included.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn has(&self, component: u64) -> bool {
        read_u64(self.0, XSTATE_BV) & component != 0
    }

    fn fcw(&self) -> u16 {
        if self.has(X87) {
            u16::from_le_bytes(read(self.0, FCW))
        } else {
            FCW_INITIAL
        }
    }

    fn mxcsr(&self) -> u32 {
        let is_compacted = read_u64(self.0, XCOMP_BV) & COMPACTED != 0;
        if is_compacted && !self.has(SSE) {
            MXCSR_INITIAL
        } else {
            read_u32(self.0, MXCSR)
        }
    }

    /// `N` bytes at `at` of the state that belongs to `component`, zero while that is in its initial state.
    fn get<const N: usize>(&self, component: u64, at: usize) -> [u8; N] {
        if self.has(component) {
            read(self.0, at)
        } else {
            [0; N]
        }
    }

    /// Copies x87, MXCSR and, of `held`, the XMM registers. `to` is zero there.
    fn legacy(&self, held: u64, to: &mut [u8]) {
        if held & X87 != 0 {
            copy(self.0, FCW, to, FCW, MXCSR);
            copy(self.0, ST0, to, ST0, XMM0 - ST0);
        }
        write(to, FCW, &self.fcw().to_le_bytes());
        write(to, MXCSR, &self.mxcsr().to_le_bytes());
        if held & SSE != 0 {
            copy(self.0, XMM0, to, XMM0, XMM_END - XMM0);
        }
    }
}

/// A register of the image, as the names number them: XMM0 to XMM15, ST0 to ST7 (80 bits), FpControlStatus,
/// XmmControlStatus; 0 beyond.
pub fn get(image: &[u8], layout: &Layout, index: usize) -> u128 {
    let reader = Reader(image);
    match index {
        0..16 => u128::from_le_bytes(reader.get(SSE, XMM0 + index * 16)),
        16..24 => u128::from_le_bytes(reader.get(X87, ST0 + (index - 16) * 16)) & LOW_80,
        24 => {
            let all = u128::from_le_bytes(reader.get(X87, FCW));
            all & !RESERVED_BYTE & !0xFFFF | u128::from(reader.fcw())
        }
        25 => {
            u128::from(u64::from_le_bytes(reader.get(X87, FDP)))
                | u128::from(reader.mxcsr()) << 64
                | u128::from(layout.mxcsr_mask) << 96
        }
        _ => 0,
    }
}

/// Sets a register, numbered as for [`get`]. The mask in XmmControlStatus is ignored.
///
/// # Errors
/// MXCSR has reserved bits, or there is no such register. Nothing was changed.
pub fn set(image: &mut [u8], layout: &Layout, index: usize, value: u128) -> Result<(), BadImage> {
    let bytes = value.to_le_bytes();
    if index != 25 {
        leave_initial(image, if index < 16 { SSE } else { X87 });
    }
    match index {
        0..16 => write(image, XMM0 + index * 16, &bytes),
        16..24 => {
            let low = (value & LOW_80).to_le_bytes();
            write(image, ST0 + (index - 16) * 16, &low);
        }
        24 => write(image, FCW, &(value & !RESERVED_BYTE).to_le_bytes()),
        25 => {
            let mxcsr = (value >> 64) as u32;
            if mxcsr & !layout.mxcsr_mask != 0 {
                return Err(BadImage);
            }
            leave_initial(image, X87);
            leave_initial(image, SSE);
            write(image, FDP, &(value as u64).to_le_bytes());
            write(image, MXCSR, &mxcsr.to_le_bytes());
        }
        _ => return Err(BadImage),
    }
    Ok(())
}

/// Writes out the initial state of `component`, [`X87`] or [`SSE`], if the image only implies it.
fn leave_initial(image: &mut [u8], component: u64) {
    let reader = Reader(image);
    if reader.has(component) {
        return;
    }
    let (held, mxcsr) = (read_u64(image, XSTATE_BV) | component, reader.mxcsr());
    if component == X87 {
        fill_zero(image, 0..MXCSR);
        fill_zero(image, ST0..XMM0);
        write(image, FCW, &FCW_INITIAL.to_le_bytes());
    } else {
        fill_zero(image, XMM0..XMM_END);
        write(image, MXCSR, &mxcsr.to_le_bytes());
    }
    write(image, XSTATE_BV, &held.to_le_bytes());
}
