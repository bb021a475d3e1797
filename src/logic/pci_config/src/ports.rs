//! Ports 0xCF8 to 0xCFF: the machine's, and the parent's view of them.

/// The configuration address port; only a 32-bit access of it is one.
pub const ADDRESS_PORT: u16 = 0xCF8;
/// The first of the four configuration data ports.
pub const DATA_PORT: u16 = 0xCFC;

/// Width of a port access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Width {
    Byte = 1,
    Word = 2,
    Dword = 4,
}

impl Width {
    /// The width in bytes.
    pub const fn bytes(self) -> u8 {
        self as u8
    }

    /// The values that fit, as a mask.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => u32::MAX,
        }
    }
}

/// The machine's two configuration ports, exclusively ours while borrowed.
///
/// In both data calls `offset` is 0 to 3, added to [`DATA_PORT`], and `offset` plus `width` is at most
/// four. Values occupy the low bits; the others are to be ignored.
pub trait ConfigPorts {
    /// Writes 32 bits to port 0xCF8.
    fn write_address(&mut self, value: u32);
    /// Reads from port 0xCFC + `offset`.
    fn read_data(&mut self, offset: u16, width: Width) -> u32;
    /// Writes to port 0xCFC + `offset`.
    fn write_data(&mut self, offset: u16, width: Width, value: u32);
}

/// What became of a port access of the parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum PortOutcome<T> {
    /// Done; with the value read, if it was a read.
    Done(T),
    /// None of configuration space's: perform it on the port itself. Reset control (0xCF9) is such a
    /// port, and byte accesses of 0xCFB, with which Linux probes the mechanism, go there too.
    Ordinary,
}

/// The parent's value of port 0xCF8. The machine's own changes under it with every ECAM access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigAddress(u32);

/// The offset of a data access, when all of it lies in the data ports.
fn data_offset(port: u16, width: Width) -> Option<u16> {
    let offset = port.checked_sub(DATA_PORT)?;
    (offset.checked_add(u16::from(width.bytes()))? <= 4).then_some(offset)
}

impl ConfigAddress {
    /// The value that the port holds at launch.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value as the parent last wrote it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The parent reads `port`.
    ///
    /// Without the enable bit, too, a data access goes to the machine with the parent's address: the
    /// chipset then treats it as an ordinary port.
    pub fn read(&self, ports: &mut impl ConfigPorts, port: u16, width: Width) -> PortOutcome<u32> {
        if port == ADDRESS_PORT && width == Width::Dword {
            return PortOutcome::Done(self.0);
        }
        let Some(offset) = data_offset(port, width) else {
            return PortOutcome::Ordinary;
        };
        ports.write_address(self.0);
        PortOutcome::Done(ports.read_data(offset, width) & width.mask())
    }

    /// The parent writes the low bits of `value` to `port`.
    pub fn write(
        &mut self,
        ports: &mut impl ConfigPorts,
        port: u16,
        width: Width,
        value: u32,
    ) -> PortOutcome<()> {
        if port == ADDRESS_PORT && width == Width::Dword {
            self.0 = value;
            return PortOutcome::Done(());
        }
        let Some(offset) = data_offset(port, width) else {
            return PortOutcome::Ordinary;
        };
        ports.write_address(self.0);
        ports.write_data(offset, width, value & width.mask());
        PortOutcome::Done(())
    }
}
