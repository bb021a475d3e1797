//! The memory-mapped window.

use addr::Gpa;

use crate::ports::{ConfigPorts, Width};

/// Bytes of window for one bus.
const BUS_SIZE: u64 = 1 << 20;
/// The enable bit of port 0xCF8.
const ENABLE: u32 = 1 << 31;
/// Registers that the ports reach.
const LEGACY_REGISTERS: u16 = 256;

/// A window over buses 0 to `last_bus` of segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamWindow {
    base: Gpa,
    last_bus: u8,
}

/// A register of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigRegister {
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
    /// Byte offset in the function's configuration space, 0 to 4095.
    pub register: u16,
}

impl ConfigRegister {
    /// What port 0xCF8 must hold for an access to this register; `None` from register 256 on, which
    /// the ports do not reach.
    pub const fn address_word(self) -> Option<u32> {
        if self.register >= LEGACY_REGISTERS {
            return None;
        }
        let device = (self.device & 31) as u32;
        let function = (self.function & 7) as u32;
        let register = (self.register & 0xFC) as u32;
        Some(ENABLE | ((self.bus as u32) << 16) | (device << 11) | (function << 8) | register)
    }
}

impl EcamWindow {
    /// The window at `base` for buses 0 to `last_bus`; `None` when `base` is not a multiple of 1 MiB,
    /// or the window leaves the address space.
    pub const fn new(base: Gpa, last_bus: u8) -> Option<Self> {
        let window = Self { base, last_bus };
        if !base.is_aligned(BUS_SIZE) || base.checked_add(window.size() - 1).is_none() {
            return None;
        }
        Some(window)
    }

    /// The first address, as the MCFG table gives it.
    pub const fn base(&self) -> Gpa {
        self.base
    }

    /// The last bus, as the MCFG table gives it.
    pub const fn last_bus(&self) -> u8 {
        self.last_bus
    }

    /// Size in bytes: 1 MiB a bus.
    pub const fn size(&self) -> u64 {
        (self.last_bus as u64 + 1) * BUS_SIZE
    }

    /// Whether `address` lies in the window.
    pub const fn contains(&self, address: Gpa) -> bool {
        self.decode(address).is_some()
    }

    /// The register at `address`; `None` outside the window.
    pub const fn decode(&self, address: Gpa) -> Option<ConfigRegister> {
        let Some(offset) = address.get().checked_sub(self.base.get()) else {
            return None;
        };
        if offset >= self.size() {
            return None;
        }
        Some(ConfigRegister {
            bus: (offset >> 20) as u8,
            device: ((offset >> 15) & 31) as u8,
            function: ((offset >> 12) & 7) as u8,
            register: (offset & 0xFFF) as u16,
        })
    }

    /// Reads `bytes` (at most 8 count) at `address`.
    ///
    /// What is outside the window, and what the ports do not reach, reads as ones. The access is made
    /// of naturally aligned pieces of at most four bytes, lowest first.
    pub fn read(&self, ports: &mut impl ConfigPorts, address: Gpa, bytes: u8) -> u64 {
        let mut value = 0;
        for piece in Pieces::new(address, bytes) {
            let part = match self.place(piece.address) {
                Some((word, offset)) => {
                    ports.write_address(word);
                    ports.read_data(offset, piece.width)
                }
                None => u32::MAX,
            };
            value |= u64::from(part & piece.width.mask()) << piece.shift;
        }
        value
    }

    /// Writes the low `bytes` bytes (at most 8 count) of `value` at `address`, in the pieces of
    /// [`EcamWindow::read`]. What is outside the window or out of the ports' reach is dropped.
    pub fn write(&self, ports: &mut impl ConfigPorts, address: Gpa, bytes: u8, value: u64) {
        for piece in Pieces::new(address, bytes) {
            if let Some((word, offset)) = self.place(piece.address) {
                ports.write_address(word);
                ports.write_data(
                    offset,
                    piece.width,
                    (value >> piece.shift) as u32 & piece.width.mask(),
                );
            }
        }
    }

    /// The address word and the data port offset for the byte at `address`.
    fn place(&self, address: Gpa) -> Option<(u32, u16)> {
        let register = self.decode(address)?;
        Some((register.address_word()?, register.register & 3))
    }
}

/// A naturally aligned part of an access.
struct Piece {
    address: Gpa,
    width: Width,
    /// Its place in the value, in bits.
    shift: u32,
}

/// An access cut into naturally aligned parts. Every part lies in one register of four bytes.
struct Pieces {
    next: Option<Gpa>,
    left: u8,
    shift: u32,
}

impl Pieces {
    const fn new(address: Gpa, bytes: u8) -> Self {
        Self {
            next: Some(address),
            left: if bytes > 8 { 8 } else { bytes },
            shift: 0,
        }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let address = self.next?;
        let width = match (self.left, address.get() & 3) {
            (0, _) => return None,
            (4.., 0) => Width::Dword,
            (2.., 0 | 2) => Width::Word,
            _ => Width::Byte,
        };
        let piece = Piece {
            address,
            width,
            shift: self.shift,
        };
        self.next = address.checked_add(u64::from(width.bytes()));
        self.left = self.left.saturating_sub(width.bytes());
        self.shift += u32::from(width.bytes()) * 8;
        Some(piece)
    }
}
