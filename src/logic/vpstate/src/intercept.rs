//! What the parent is told of an exit that the hypervisor does not answer: one message for each kind.
//!
//! Source: TLFS, "Intercepts"; layouts in [`tlfs::intercept`].

use addr::{Gpa, Gva, PartitionId, VpIndex};
use tlfs::intercept::{
    AccessType, ApicEoi, CpuidIntercept, ExceptionInfo, ExceptionIntercept, ExecutionState,
    InterceptHeader, InvalidVpRegister, IoPortIntercept, MemoryAccess, MemoryIntercept,
    MsrIntercept, PortAccess, cache_type,
};
use tlfs::register::interrupt_state;
use tlfs::{Message, MessageType};
use vpcore::seam::{IoAccess, Register, SegmentName, SlatFault, VpBackend};
use x86::cpuid::CpuidResult;
use x86::{Gp, cr0, efer};

/// Bytes of the instruction at RIP, as many as could be fetched, at most 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    bytes: [u8; 16],
    count: u8,
}

impl Instruction {
    /// The first 16 of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut this = Self::default();
        for (to, from) in this.bytes.iter_mut().zip(bytes) {
            *to = *from;
            this.count += 1;
        }
        this
    }
}

/// Where a VP stopped: what every message begins with.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    partition: PartitionId,
    header: InterceptHeader,
}

impl Context {
    /// Takes it from `vp`, which stopped at an instruction of `length` bytes (0 when there is none, or it is not known;
    /// never for a port access, whose instruction the parent steps over by it). `is_delivering` says that the delivery of
    /// an event was interrupted.
    pub fn new(
        (partition, index): (PartitionId, VpIndex),
        vp: &dyn VpBackend,
        cr8: u8,
        length: u8,
        is_delivering: bool,
    ) -> Self {
        let flag = |state: ExecutionState, is_set: bool| {
            if is_set {
                state
            } else {
                ExecutionState::empty()
            }
        };
        let code = vp.code_state();
        let (cr0, dr7) = (code.cr0, vp.get(Register::Dr7));
        let shadow = vp.get(Register::InterruptState) & interrupt_state::SHADOW != 0;
        let state = ExecutionState::from_bits_retain(u16::from(code.cpl & 3))
            | flag(ExecutionState::PE, cr0 & cr0::PE != 0)
            | flag(ExecutionState::AM, cr0 & cr0::AM != 0)
            | flag(ExecutionState::LMA, code.efer & efer::LMA != 0)
            | flag(ExecutionState::DEBUG_ACTIVE, dr7 & 0xFF != 0)
            | flag(ExecutionState::INTERRUPTION_PENDING, is_delivering)
            | flag(ExecutionState::INTERRUPT_SHADOW, shadow);
        Self {
            partition,
            header: InterceptHeader {
                vp: index,
                length_and_cr8: length & 0xF | cr8 << 4,
                access: AccessType::Execute,
                state,
                cs: code.cs,
                rip: code.rip,
                rflags: code.rflags,
            },
        }
    }

    fn header(&self, access: AccessType) -> InterceptHeader {
        InterceptHeader {
            access,
            ..self.header
        }
    }

    fn message(&self, kind: MessageType, payload: &[u8]) -> Message {
        // No payload is longer than a message, and no kind is the one of an empty slot.
        Message::new(kind, self.partition.get(), payload).unwrap_or(Message::EMPTY)
    }

    /// A port was accessed.
    pub fn port(
        &self,
        vp: &dyn VpBackend,
        access: &IoAccess,
        instruction: &Instruction,
    ) -> Message {
        let kind = if access.is_in {
            AccessType::Read
        } else {
            AccessType::Write
        };
        let mut info = PortAccess::from_bits_truncate(access.width & 7);
        info.set(PortAccess::STRING, access.is_string);
        info.set(PortAccess::REP, access.is_rep);
        let gp = vp.gp();
        let payload = IoPortIntercept {
            header: self.header(kind),
            port: access.port,
            info,
            instruction_count: instruction.count,
            rax: gp.get(Gp::Rax),
            instruction: instruction.bytes,
            ds: vp.segment(SegmentName::Ds),
            es: vp.segment(SegmentName::Es),
            rcx: gp.get(Gp::Rcx),
            rsi: gp.get(Gp::Rsi),
            rdi: gp.get(Gp::Rdi),
            ..Default::default()
        };
        self.message(MessageType::IO_PORT_INTERCEPT, &payload.encode())
    }

    /// Memory was accessed. `is_mapped` says that the parent mapped the address, with or without access: then it is a
    /// GPA intercept, else an unmapped one. `gva` is the linear address of the access, where it is known.
    pub fn memory(
        &self,
        fault: &SlatFault,
        is_mapped: bool,
        gva: Option<Gva>,
        instruction: &Instruction,
    ) -> Message {
        let access = match (fault.is_execute, fault.is_write) {
            // Walks of page tables are reads or writes, whatever for.
            (true, _) if !fault.is_table_walk => AccessType::Execute,
            (_, true) => AccessType::Write,
            _ => AccessType::Read,
        };
        let mut info = MemoryAccess::empty();
        info.set(MemoryAccess::GVA_VALID, gva.is_some());
        info.set(
            MemoryAccess::GVA_GPA_VALID,
            gva.is_some() && !fault.is_table_walk,
        );
        let kind = if is_mapped {
            MessageType::GPA_INTERCEPT
        } else {
            MessageType::UNMAPPED_GPA
        };
        let payload = MemoryIntercept {
            header: self.header(access),
            cache_type: if is_mapped {
                cache_type::WRITE_BACK
            } else {
                cache_type::UNCACHED
            },
            instruction_count: instruction.count,
            info,
            tpr: self.header.length_and_cr8 >> 4,
            gva: gva.unwrap_or_default(),
            gpa: Gpa::new(fault.gpa.get()),
            instruction: instruction.bytes,
            ..Default::default()
        };
        self.message(kind, &payload.encode())
    }

    /// RDMSR or WRMSR of a register that the hypervisor leaves to the parent.
    pub fn msr(&self, vp: &dyn VpBackend, msr: u32, is_write: bool) -> Message {
        let access = if is_write {
            AccessType::Write
        } else {
            AccessType::Read
        };
        let payload = MsrIntercept {
            header: self.header(access),
            msr,
            rdx: vp.gp().get(Gp::Rdx),
            rax: vp.gp().get(Gp::Rax),
            ..Default::default()
        };
        self.message(MessageType::MSR_INTERCEPT, &payload.encode())
    }

    /// CPUID of a leaf that the parent intercepts; `answer` is what the guest would get.
    pub fn cpuid(&self, vp: &dyn VpBackend, answer: &CpuidResult) -> Message {
        let gp = vp.gp();
        let payload = CpuidIntercept {
            header: self.header,
            rax: gp.get(Gp::Rax),
            rcx: gp.get(Gp::Rcx),
            rdx: gp.get(Gp::Rdx),
            rbx: gp.get(Gp::Rbx),
            default_rax: answer.eax.into(),
            default_rcx: answer.ecx.into(),
            default_rdx: answer.edx.into(),
            default_rbx: answer.ebx.into(),
        };
        self.message(MessageType::CPUID_INTERCEPT, &payload.encode())
    }

    /// An exception that the parent intercepts. `parameter` is CR2 or the bits of DR6.
    pub fn exception(
        &self,
        vp: &dyn VpBackend,
        (vector, error_code): (u8, Option<u32>),
        parameter: u64,
        instruction: &Instruction,
    ) -> Message {
        let mut info = ExceptionInfo::empty();
        info.set(ExceptionInfo::HAS_ERROR_CODE, error_code.is_some());
        // INT3 and INTO are there to raise them.
        info.set(ExceptionInfo::SOFTWARE, matches!(vector, 3 | 4));
        let payload = ExceptionIntercept {
            header: self.header,
            vector: vector.into(),
            info,
            instruction_count: instruction.count,
            error_code: error_code.unwrap_or(0),
            parameter,
            instruction: instruction.bytes,
            ds: vp.segment(SegmentName::Ds),
            ss: vp.segment(SegmentName::Ss),
            gp: vp.gp().0,
            ..Default::default()
        };
        self.message(MessageType::EXCEPTION_INTERCEPT, &payload.encode())
    }

    /// The VP shut down: triple fault.
    pub fn unrecoverable(&self) -> Message {
        self.message(MessageType::UNRECOVERABLE_EXCEPTION, &self.header.encode())
    }

    /// The hardware refuses the VP's registers: the answer to `Exit::InvalidState`.
    pub fn invalid_state(&self) -> Message {
        let payload = InvalidVpRegister {
            vp: self.header.vp,
            ..Default::default()
        };
        self.message(MessageType::INVALID_VP_REGISTER, &payload.encode())
    }

    /// The guest ended the level interrupt `vector`.
    pub fn apic_eoi(&self, vector: u8) -> Message {
        let payload = ApicEoi {
            vp: self.header.vp,
            vector: vector.into(),
        };
        self.message(MessageType::APIC_EOI, &payload.encode())
    }
}
