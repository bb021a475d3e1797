//! What a VP stopped for.

use core::fmt;

use tlfs::MessageType;
use tlfs::intercept::{
    ApicEoi, CpuidIntercept, ExceptionIntercept, InterceptHeader, IoPortIntercept, MemoryIntercept,
    MsrIntercept,
};

/// A message as the parent got it.
#[derive(Clone, Copy)]
pub struct Intercept {
    /// Its type.
    pub kind: MessageType,
    /// Who sent it: the partition.
    pub sender: u64,
    /// Its payload.
    pub payload: [u8; 240],
}

impl Intercept {
    /// From the 256 bytes of a slot or of an intercept page.
    pub fn of(words: [u64; 32]) -> Self {
        let mut payload = [0; 240];
        for (to, from) in payload.chunks_exact_mut(8).zip(&words[2..]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        Self {
            kind: MessageType(words[0] as u32),
            sender: words[1],
            payload,
        }
    }

    /// The common header; zeros when the payload is none.
    pub fn header(&self) -> InterceptHeader {
        InterceptHeader::decode(&self.payload).unwrap_or_default()
    }

    /// Length of the instruction.
    pub fn length(&self) -> u64 {
        u64::from(self.header().length_and_cr8 & 0xF)
    }

    /// The access to a port, if it is one.
    pub fn port(&self) -> Option<IoPortIntercept> {
        (self.kind == MessageType::IO_PORT_INTERCEPT)
            .then(|| IoPortIntercept::decode(&self.payload).ok())
            .flatten()
    }

    /// The access to memory, if it is one.
    pub fn memory(&self) -> Option<MemoryIntercept> {
        matches!(
            self.kind,
            MessageType::UNMAPPED_GPA | MessageType::GPA_INTERCEPT
        )
        .then(|| MemoryIntercept::decode(&self.payload).ok())
        .flatten()
    }

    /// The access to an MSR, if it is one.
    pub fn msr(&self) -> Option<MsrIntercept> {
        (self.kind == MessageType::MSR_INTERCEPT)
            .then(|| MsrIntercept::decode(&self.payload).ok())
            .flatten()
    }

    /// The leaf of CPUID, if it is that.
    pub fn cpuid(&self) -> Option<CpuidIntercept> {
        (self.kind == MessageType::CPUID_INTERCEPT)
            .then(|| CpuidIntercept::decode(&self.payload).ok())
            .flatten()
    }

    /// The exception, if it is one.
    pub fn exception(&self) -> Option<ExceptionIntercept> {
        (self.kind == MessageType::EXCEPTION_INTERCEPT)
            .then(|| ExceptionIntercept::decode(&self.payload).ok())
            .flatten()
    }

    /// The interrupt that ended, if this tells of one.
    pub fn eoi(&self) -> Option<ApicEoi> {
        (self.kind == MessageType::APIC_EOI)
            .then(|| ApicEoi::decode(&self.payload).ok())
            .flatten()
    }

    /// Whether it is an OUT to `port`.
    pub fn is_out(&self, port: u16) -> bool {
        self.port().is_some_and(|access| {
            access.port == port && access.header.access == tlfs::intercept::AccessType::Write
        })
    }
}

impl fmt::Display for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(
            f,
            "type {:#x} vp {} rip {:#x}",
            self.kind.0,
            header.vp.get(),
            header.rip
        )?;
        if let Some(port) = self.port() {
            write!(f, " port {:#x} rax {:#x}", port.port, port.rax)?;
            if port.port == crate::child::code::FAULT {
                let (error, at, cr2) = (port.rcx, port.rsi, port.rdi);
                write!(f, ": exception, error {error:#x} at {at:#x}, CR2 {cr2:#x}")?;
            }
        }
        if let Some(memory) = self.memory() {
            let access = memory.header.access;
            write!(
                f,
                " {access:?} gpa {:#x} gva {:#x}",
                memory.gpa.get(),
                memory.gva.get()
            )?;
        }
        if let Some(msr) = self.msr() {
            write!(f, " msr {:#x}", msr.msr)?;
        }
        Ok(())
    }
}
