//! Exits that the parent answers: the message, its page, the register page, and the note to the parent's VP.

use paging::walk::Access;
use tlfs::Message;
use vpcore::seam::{IoAccess, Register, SlatFault};
use vpstate::intercept::{Context, Instruction};
use x86::cpuid::CpuidResult;
use x86::vector;

use super::ChildCore;
use crate::partition::statistics::About;
use crate::partition::{Partition, notices, slots};

impl ChildCore {
    /// Leaves `message` for the parent. The VP does not run on before the parent has answered.
    fn intercept(&mut self, about: About, message: Message) {
        self.is_settled = false;
        let vp = self.role.vp;
        let scheduled = self.role.scheduled;
        if scheduled.suspend.reasons().has(vpstate::Reasons::INTERCEPT) {
            // One is outstanding: of several causes of one exit the first is told.
            return;
        }
        self.role.tally.told(about);
        *vp.message.lock() = message;
        let image = vp
            .pages
            .lock()
            .registers
            .is_some()
            .then(|| self.register_page());
        let pages = vp.pages.lock();
        if let Some(page) = &pages.intercept {
            page.write(0, &message.image());
        }
        if let (Some(page), Some(image)) = (&pages.registers, image) {
            page.write(0, &image);
        }
        drop(pages);
        if scheduled.suspend.raise_intercept()
            && !slots::intercepted(self.lp, self.partition, self.index)
        {
            notices::post(self.lp, scheduled);
        }
    }

    fn context(&self, length: u8) -> Context {
        Context::new(
            (self.partition.core().id, self.index),
            &self.backend,
            self.apic.cr8(),
            length,
            self.interrupted.is_some(),
        )
    }

    /// The bytes at RIP, and the length of the instruction that they make.
    fn instruction(&mut self) -> (Instruction, u8) {
        let fetched = self.fetch();
        let length = insn::length(fetched.bytes(), fetched.mode).unwrap_or(0);
        (Instruction::new(fetched.bytes()), length)
    }

    pub(super) fn intercept_port(&mut self, access: &IoAccess) {
        let (instruction, decoded) = self.instruction();
        let rip = self.backend.get(Register::Rip);
        let length = access
            .next_rip
            .or_else(|| self.backend.next_rip())
            .map_or(decoded, |next| next.wrapping_sub(rip) as u8);
        let message = self
            .context(length)
            .port(&self.backend, access, &instruction);
        self.intercept(About::Port, message);
    }

    pub(super) fn intercept_memory(&mut self, fault: &SlatFault) {
        let access = match (fault.is_execute, fault.is_write) {
            (true, _) => Access::Execute,
            (_, true) => Access::Write,
            _ => Access::Read,
        };
        let is_mapped = match self.partition.check_gpa(fault.gpa, access) {
            // Another LP was faster.
            Ok(()) => return,
            Err(fault) => fault != gpa_space::Fault::Unmapped,
        };
        let (instruction, length) = self.instruction();
        let message = self
            .context(length)
            .memory(fault, is_mapped, fault.gva, &instruction);
        self.intercept(About::Memory, message);
    }

    pub(super) fn intercept_msr(&mut self, number: u32, is_write: bool) {
        let (_, length) = self.instruction();
        let message = self.context(length).msr(&self.backend, number, is_write);
        self.intercept(About::Other, message);
    }

    /// CPUID of a leaf that the parent intercepts.
    pub(super) fn intercept_cpuid(&mut self, answer: &CpuidResult) {
        let (_, length) = self.instruction();
        let message = self.context(length).cpuid(&self.backend, answer);
        self.intercept(About::Other, message);
    }

    /// An exception that the parent intercepts; RIP is where its handler would find it.
    #[cold]
    pub(super) fn intercept_exception(&mut self, number: u8, code: Option<u32>) {
        let parameter = match number {
            vector::PF => self.backend.fault_address(),
            vector::DB => self.backend.get(Register::Dr6),
            _ => 0,
        };
        let (instruction, length) = self.instruction();
        let message =
            self.context(length)
                .exception(&self.backend, (number, code), parameter, &instruction);
        self.intercept(About::Other, message);
    }

    pub(super) fn intercept_triple_fault(&mut self) {
        let message = self.context(0).unrecoverable();
        self.intercept(About::Other, message);
    }

    pub(super) fn intercept_invalid_state(&mut self) {
        let message = self.context(0).invalid_state();
        self.intercept(About::Other, message);
    }

    pub(super) fn intercept_eoi(&mut self, vector: u8) {
        let message = self.context(0).apic_eoi(vector);
        self.intercept(About::Other, message);
    }
}
