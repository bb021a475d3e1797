//! The synthetic MSRs that a partition has once.

use tlfs::msr::{self, CrashCtl, Hypercall, OverlayPage};
use tlfs::{Features, Privileges};

use crate::{CrashReport, GpFault, MsrEffect, Overlay, RefTime, WriteContext};

/// What stays the same for the life of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// What its leaf 0x40000003 says in EAX and EBX.
    pub privileges: Privileges,
    /// What its leaf 0x40000003 says in EDX.
    pub features: Features,
    /// Its TSC in Hz.
    pub tsc_hz: u64,
    /// The input clock of its local APIC timers in Hz.
    pub apic_hz: u64,
}

/// The registers of one partition.
#[derive(Clone, Debug)]
pub struct PartitionMsrs {
    config: PartitionConfig,
    guest_os_id: u64,
    hypercall: Hypercall,
    reference_tsc: OverlayPage,
    tsc_invariant_control: u64,
    crash: [u64; 5],
}

impl PartitionMsrs {
    /// The registers of a partition that was just created.
    pub const fn new(config: PartitionConfig) -> Self {
        Self {
            config,
            guest_os_id: 0,
            hypercall: Hypercall(0),
            reference_tsc: OverlayPage(0),
            tsc_invariant_control: 0,
            crash: [0; 5],
        }
    }

    /// What was fixed when the partition was created.
    pub const fn config(&self) -> &PartitionConfig {
        &self.config
    }

    /// What the guest said of itself; 0 while it has not, or after it said good-bye.
    pub const fn guest_os_id(&self) -> u64 {
        self.guest_os_id
    }

    /// The hypercall page.
    pub const fn hypercall(&self) -> Hypercall {
        self.hypercall
    }

    /// The reference TSC page.
    pub const fn reference_tsc(&self) -> OverlayPage {
        self.reference_tsc
    }

    /// Whether the guest asked to see the invariant TSC in CPUID 0x80000007.
    pub const fn is_tsc_invariant_exposed(&self) -> bool {
        self.tsc_invariant_control & msr::TSC_INVARIANT_EXPOSE != 0
    }

    /// All registers back to where [`PartitionMsrs::new`] had them. The caller takes the overlays away.
    pub const fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    /// Reads MSR `number` at reference time `now`.
    ///
    /// # Errors
    /// [`GpFault`] when the partition has no such register.
    pub fn read(&self, number: u32, now: RefTime) -> Result<u64, GpFault> {
        self.check_offered(number)?;
        self.get(number, now)
    }

    /// As [`PartitionMsrs::read`], for the parent of the partition: also what the partition was not told of.
    ///
    /// # Errors
    /// [`GpFault`] when there is no such register.
    pub fn get(&self, number: u32, now: RefTime) -> Result<u64, GpFault> {
        match number {
            msr::GUEST_OS_ID => Ok(self.guest_os_id),
            msr::HYPERCALL => Ok(self.hypercall.0),
            msr::TIME_REF_COUNT => Ok(now.0),
            msr::REFERENCE_TSC => Ok(self.reference_tsc.0),
            msr::TSC_FREQUENCY => Ok(self.config.tsc_hz),
            msr::APIC_FREQUENCY => Ok(self.config.apic_hz),
            msr::CRASH_P0..=msr::CRASH_P4 => crash_index(number)
                .and_then(|i| self.crash.get(i))
                .copied()
                .ok_or(GpFault),
            msr::CRASH_CTL => Ok(CrashCtl::CAPABILITIES.0),
            msr::TSC_INVARIANT_CONTROL => Ok(self.tsc_invariant_control),
            _ => Err(GpFault),
        }
    }

    /// Writes `value` to MSR `number`.
    ///
    /// # Errors
    /// [`GpFault`] when the partition has no such register, it is read-only, a reserved bit is set, or a page is
    /// placed outside the address space.
    pub fn write(
        &mut self,
        number: u32,
        value: u64,
        context: &WriteContext<'_>,
    ) -> Result<MsrEffect, GpFault> {
        self.check_offered(number)?;
        // Without an identity the page number is kept, but the page is not enabled.
        if number == msr::HYPERCALL && self.guest_os_id == 0 {
            return self.write_hypercall(Hypercall(value).disabled(), value, context);
        }
        self.set(number, value, context)
    }

    /// As [`PartitionMsrs::write`], for the parent of the partition, which restores a state in any order: also what the
    /// partition was not told of, and the hypercall page before the identity.
    ///
    /// # Errors
    /// As [`PartitionMsrs::write`].
    pub fn set(
        &mut self,
        number: u32,
        value: u64,
        context: &WriteContext<'_>,
    ) -> Result<MsrEffect, GpFault> {
        match number {
            msr::GUEST_OS_ID => Ok(self.write_guest_os_id(value)),
            msr::HYPERCALL => self.write_hypercall(Hypercall(value), value, context),
            msr::REFERENCE_TSC => {
                let register = OverlayPage(value);
                check_overlay(register, context)?;
                self.reference_tsc = register;
                Ok(MsrEffect::Overlay {
                    kind: Overlay::ReferenceTsc,
                    page: register.enabled_page(),
                })
            }
            msr::CRASH_P0..=msr::CRASH_P4 => {
                *crash_index(number)
                    .and_then(|i| self.crash.get_mut(i))
                    .ok_or(GpFault)? = value;
                Ok(MsrEffect::None)
            }
            msr::CRASH_CTL => {
                let ctl = CrashCtl(value);
                if ctl.is_notify() {
                    Ok(MsrEffect::Crash(CrashReport {
                        parameters: self.crash,
                        ctl,
                    }))
                } else {
                    Ok(MsrEffect::None)
                }
            }
            msr::TSC_INVARIANT_CONTROL => {
                if value & !msr::TSC_INVARIANT_EXPOSE != 0 {
                    return Err(GpFault);
                }
                self.tsc_invariant_control = value;
                Ok(MsrEffect::None)
            }
            _ => Err(GpFault), // read-only or not ours
        }
    }

    /// A guest that takes its identity back has no hypercall page any more.
    fn write_guest_os_id(&mut self, value: u64) -> MsrEffect {
        self.guest_os_id = value;
        if value == 0 && self.hypercall.is_enabled() {
            self.hypercall = self.hypercall.disabled();
            return MsrEffect::Overlay {
                kind: Overlay::Hypercall,
                page: None,
            };
        }
        MsrEffect::None
    }

    fn write_hypercall(
        &mut self,
        new: Hypercall,
        written: u64,
        context: &WriteContext<'_>,
    ) -> Result<MsrEffect, GpFault> {
        let written = Hypercall(written);
        let is_placed = !written.is_enabled() || (context.is_page)(written.page());
        if written.0 & Hypercall::RESERVED != 0 || !is_placed {
            return Err(GpFault);
        }
        let page = new.is_enabled().then(|| new.page());
        let was_enabled = core::mem::replace(&mut self.hypercall, new).is_enabled();
        if page.is_none() && !was_enabled {
            return Ok(MsrEffect::None);
        }
        Ok(MsrEffect::Overlay {
            kind: Overlay::Hypercall,
            page,
        })
    }

    /// Whether the partition was told of the register (TLFS: the others raise #GP). TIME_REF_COUNT is there
    /// whatever it was told, because Linux falls back on it without asking.
    fn check_offered(&self, number: u32) -> Result<(), GpFault> {
        let PartitionConfig {
            privileges,
            features,
            ..
        } = self.config;
        let is_offered = match number {
            msr::GUEST_OS_ID | msr::HYPERCALL => privileges.contains(Privileges::HYPERCALL_MSRS),
            msr::TIME_REF_COUNT => true,
            msr::REFERENCE_TSC => privileges.contains(Privileges::REFERENCE_TSC),
            msr::TSC_FREQUENCY | msr::APIC_FREQUENCY => {
                privileges.contains(Privileges::FREQUENCY_MSRS)
                    && features.contains(Features::FREQUENCY_MSRS)
            }
            msr::CRASH_P0..=msr::CRASH_CTL => features.contains(Features::CRASH_MSRS),
            msr::TSC_INVARIANT_CONTROL => privileges.contains(Privileges::TSC_INVARIANT),
            _ => false,
        };
        if is_offered { Ok(()) } else { Err(GpFault) }
    }
}

/// Reserved bits zero, and the page, if enabled, in the address space.
pub(crate) fn check_overlay(
    register: OverlayPage,
    context: &WriteContext<'_>,
) -> Result<(), GpFault> {
    let is_placed = register.enabled_page().is_none_or(context.is_page);
    if register.0 & OverlayPage::RESERVED != 0 || !is_placed {
        Err(GpFault)
    } else {
        Ok(())
    }
}

fn crash_index(number: u32) -> Option<usize> {
    number.checked_sub(msr::CRASH_P0).map(|i| i as usize)
}
