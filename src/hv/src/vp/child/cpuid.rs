//! CPUID of a child. Guests ask for the same few leaves often, and what a child may see is computed from many.

use core::sync::atomic::Ordering;

use tlfs::call::RegisterCpuidResult;
use vpcore::child_cpuid::{self, ChildView};
use vpcore::cpuid;
use vpcore::seam::{Register, VpBackend};
use x86::Gp;
use x86::cpuid::CpuidResult;
use x86::msr::apic_base;

use super::{Child, ChildCore, view};
use crate::arch::x86::{insn, msr};
use crate::partition::cpuid::MATCHES;
use crate::vp::{Erase, Vp};

/// Answers that are kept for each VP.
const KEPT: usize = 16;
/// The leaf whose answer depends on XCR0.
const XSAVE_LEAF: u32 = 0xD;

/// Answers that were given.
pub struct Answers([Answer; KEPT]);

#[derive(Clone, Copy)]
struct Answer {
    leaf: u32,
    subleaf: u32,
    /// What else the answer depends on; 0 for no answer.
    stamp: u64,
    answer: CpuidResult,
}

impl Answers {
    /// None.
    pub const fn new() -> Self {
        Self(
            [Answer {
                leaf: 0,
                subleaf: 0,
                stamp: 0,
                answer: CpuidResult {
                    eax: 0,
                    ebx: 0,
                    ecx: 0,
                    edx: 0,
                },
            }; KEPT],
        )
    }
}

impl<B: VpBackend> Vp<B, Child> {
    /// CPUID by the guest.
    #[inline(always)]
    pub(super) fn cpuid(&mut self) {
        let (leaf, subleaf) = (
            self.backend.gp().get(Gp::Rax) as u32,
            self.backend.gp().get(Gp::Rcx) as u32,
        );
        // CR4 shows in two leaves, the APIC's switch in one, and the parent may register results at any time.
        let stamp = self.backend.get(Register::Cr4) << 32
            | u64::from(self.partition.cpuid_epoch.load(Ordering::Acquire)) << 1
            | u64::from(self.apic.apic_base() & apic_base::ENABLE != 0)
            | 1 << 31;
        let place = (leaf ^ leaf >> 28 ^ subleaf << 2) as usize % KEPT;
        match self.role.answers.0.get(place) {
            Some(kept) if kept.leaf == leaf && kept.subleaf == subleaf && kept.stamp == stamp => {
                self.finish_cpuid(kept.answer);
            }
            _ => self.erased().compute_cpuid(leaf, subleaf, stamp, place),
        }
    }
}

impl ChildCore {
    #[inline(never)]
    fn compute_cpuid(&mut self, leaf: u32, subleaf: u32, stamp: u64, place: usize) {
        let answer = self.cpuid_value(leaf, subleaf, true, None);
        if self.partition.intercepted_leaves.lock().has(leaf) {
            // Not kept, so it comes here every time.
            self.intercept_cpuid(&answer);
            return;
        }
        if leaf != XSAVE_LEAF
            && let Some(kept) = self.role.answers.0.get_mut(place)
        {
            *kept = Answer {
                leaf,
                subleaf,
                stamp,
                answer,
            };
        }
        self.finish_cpuid(answer);
    }

    /// What CPUID answers. `by_parent`: with what the parent has registered; `xcr0`: with this value instead of the VP's.
    pub fn cpuid_value(
        &mut self,
        leaf: u32,
        subleaf: u32,
        by_parent: bool,
        xcr0: Option<u64>,
    ) -> CpuidResult {
        // Nearly always there are none: then this costs one test.
        let mut found;
        let overrides = if by_parent && self.partition.cpuid_epoch.load(Ordering::Acquire) != 0 {
            found = [RegisterCpuidResult::default(); MATCHES];
            let count =
                self.partition
                    .overrides
                    .lock()
                    .find(self.index, (leaf, subleaf), &mut found);
            found.get(..count).unwrap_or(&[])
        } else {
            &[]
        };
        let own_xcr0 = || {
            if leaf == 0xD && self.shared.is_loaded_on(self.lp) {
                msr::xgetbv()
            } else {
                self.role.extended.xcr0
            }
        };
        let view = ChildView {
            vp: self.index,
            cr4: self.backend.get(Register::Cr4),
            xcr0: xcr0.unwrap_or_else(own_xcr0),
            apic_enabled: self.apic.apic_base() & apic_base::ENABLE != 0,
            hypervisor_present: self.identity.is_present,
            overrides,
            ..view(self.partition)
        };
        let identity = &self.identity;
        let host = |leaf, subleaf| {
            if cpuid::is_hypervisor_leaf(leaf) {
                hypercall::hypervisor_leaf(leaf, identity)
            } else {
                insn::cpuid(leaf, subleaf)
            }
        };
        child_cpuid::child(leaf, subleaf, host, &view)
    }
}
