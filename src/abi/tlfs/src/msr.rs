//! The synthetic MSRs: numbers and register layouts (TLFS, appendix "Synthetic MSRs" of each chapter).
//!
//! A register newtype keeps all 64 bits as written; its methods name the fields.

use addr::Gpn;

/// First number of the hypervisor's range.
pub const FIRST: u32 = 0x4000_0000;
/// Last number of the range that the hypervisor answers; unlisted ones raise #GP.
pub const LAST: u32 = 0x4000_FFFF;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $value;)*
        /// Every MSR above with its name, in the order of the numbers.
        pub const NAMES: &[(u32, &str)] = &[$(($value, stringify!($name)),)*];
    };
}

numbers! {
    /// Identity of the guest's operating system; 0 while none has announced itself. Per partition.
    GUEST_OS_ID = 0x4000_0000;
    /// [`Hypercall`]. Per partition.
    HYPERCALL = 0x4000_0001;
    /// Index of this VP, read-only.
    VP_INDEX = 0x4000_0002;
    /// Reset of the partition.
    RESET = 0x4000_0003;
    /// Time that this VP has run, in units of 100 ns, read-only.
    VP_RUNTIME = 0x4000_0010;
    /// Reference time in units of 100 ns, read-only. Per partition.
    TIME_REF_COUNT = 0x4000_0020;
    /// [`OverlayPage`] of the reference TSC page. Per partition.
    REFERENCE_TSC = 0x4000_0021;
    /// Frequency of the TSC in Hz, read-only. Per partition.
    TSC_FREQUENCY = 0x4000_0022;
    /// Frequency of the local APIC timer before its divider in Hz, read-only. Per partition.
    APIC_FREQUENCY = 0x4000_0023;
    /// End of interrupt, write-only.
    EOI = 0x4000_0070;
    /// Interrupt command.
    ICR = 0x4000_0071;
    /// Task priority.
    TPR = 0x4000_0072;
    /// [`OverlayPage`] of the VP assist page.
    VP_ASSIST_PAGE = 0x4000_0073;
    /// SynIC control: bit 0 is [`SCONTROL_ENABLE`].
    SCONTROL = 0x4000_0080;
    /// SynIC version, read-only, 1.
    SVERSION = 0x4000_0081;
    /// [`OverlayPage`] of the event flags page.
    SIEFP = 0x4000_0082;
    /// [`OverlayPage`] of the message page.
    SIMP = 0x4000_0083;
    /// End of message: any write.
    EOM = 0x4000_0084;
    /// Event ring page.
    SIRBP = 0x4000_0085;
    /// [`Sint`] of source 0; the others follow.
    SINT0 = 0x4000_0090;
    /// [`Sint`] of source 15.
    SINT15 = 0x4000_009F;
    /// [`StimerConfig`] of timer 0; count and configuration of the others follow in turn.
    STIMER0_CONFIG = 0x4000_00B0;
    /// Expiry or period of timer 0 in units of 100 ns.
    STIMER0_COUNT = 0x4000_00B1;
    /// Expiry or period of timer 3.
    STIMER3_COUNT = 0x4000_00B7;
    /// A read parks the VP.
    GUEST_IDLE = 0x4000_00F0;
    /// First parameter of a crash report. Per partition.
    CRASH_P0 = 0x4000_0100;
    /// Fifth parameter of a crash report.
    CRASH_P4 = 0x4000_0104;
    /// [`CrashCtl`]: a write reports the crash. Per partition.
    CRASH_CTL = 0x4000_0105;
    /// Interrupt to be sent after a migration.
    REENLIGHTENMENT_CONTROL = 0x4000_0106;
    /// Whether RDTSC is emulated after a migration.
    TSC_EMULATION_CONTROL = 0x4000_0107;
    /// Whether RDTSC is being emulated.
    TSC_EMULATION_STATUS = 0x4000_0108;
    /// Bit 0 shows the invariant TSC in CPUID. Per partition.
    TSC_INVARIANT_CONTROL = 0x4000_0118;
}

/// Timers of a VP.
pub const STIMER_COUNT: usize = 4;
/// What SVERSION reads.
pub const SYNIC_VERSION: u64 = 1;
/// Bit 0 of SCONTROL: the SynIC is on.
pub const SCONTROL_ENABLE: u64 = 1;
/// Bit 0 of TSC_INVARIANT_CONTROL.
pub const TSC_INVARIANT_EXPOSE: u64 = 1;

const ENABLE: u64 = 1;
const PAGE: u64 = !0xFFF;

const fn page(register: u64) -> Gpn {
    addr::Gpa::new(register).page()
}

/// HYPERCALL: place of the hypercall page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Hypercall(pub u64);

impl Hypercall {
    /// Bits 11:2, and bit 1 (locked) which no partition of ours is offered.
    pub const RESERVED: u64 = 0xFFE;

    /// Whether the page is there.
    pub const fn is_enabled(self) -> bool {
        self.0 & ENABLE != 0
    }

    /// The same register with the page gone.
    pub const fn disabled(self) -> Self {
        Self(self.0 & !ENABLE)
    }

    /// The page, whether enabled or not.
    pub const fn page(self) -> Gpn {
        page(self.0)
    }
}

/// REFERENCE_TSC, VP_ASSIST_PAGE, SIMP and SIEFP: place of a page shared with the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct OverlayPage(pub u64);

impl OverlayPage {
    /// Bits 11:1. SIMP and SIEFP keep them as written; the other two must have them zero.
    pub const RESERVED: u64 = 0xFFE;

    /// The register of an enabled page.
    pub const fn enabled_at(page: Gpn) -> Self {
        Self((page.get() << 12) & PAGE | ENABLE)
    }

    /// Whether the page is there.
    pub const fn is_enabled(self) -> bool {
        self.0 & ENABLE != 0
    }

    /// The page, whether enabled or not.
    pub const fn page(self) -> Gpn {
        page(self.0)
    }

    /// The page when it is enabled.
    pub const fn enabled_page(self) -> Option<Gpn> {
        if self.is_enabled() {
            Some(self.page())
        } else {
            None
        }
    }
}

/// One synthetic interrupt source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sint(pub u64);

impl Sint {
    /// Masked, everything else zero.
    pub const AT_RESET: Self = Self(1 << 16);

    /// Vector it raises.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Raises nothing and takes no message or event.
    pub const fn is_masked(self) -> bool {
        self.0 & 1 << 16 != 0
    }

    /// The interrupt is not left in service.
    pub const fn is_auto_eoi(self) -> bool {
        self.0 & 1 << 17 != 0
    }

    /// Messages and events are written but no interrupt is raised.
    pub const fn is_polled(self) -> bool {
        self.0 & 1 << 18 != 0
    }

    /// Entries of its event ring are told of by a message to SINT 0.
    pub const fn is_intercept(self) -> bool {
        self.0 & 1 << 19 != 0
    }
}

/// Configuration of a synthetic timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct StimerConfig(pub u64);

impl StimerConfig {
    /// Bits 15:13 and 63:20.
    pub const RESERVED: u64 = 0xE000 | !0xF_FFFF;

    /// Counting.
    pub const fn is_enabled(self) -> bool {
        self.0 & ENABLE != 0
    }

    /// The same, with the enable bit as told.
    pub const fn with_enabled(self, enabled: bool) -> Self {
        Self(self.0 & !ENABLE | enabled as u64)
    }

    /// The count is a period, not a point in time.
    pub const fn is_periodic(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// Expiry may wait until the VP runs anyway.
    pub const fn is_lazy(self) -> bool {
        self.0 & 1 << 2 != 0
    }

    /// A write of a count other than 0 enables the timer.
    pub const fn is_auto_enable(self) -> bool {
        self.0 & 1 << 3 != 0
    }

    /// Vector in direct mode.
    pub const fn vector(self) -> u8 {
        (self.0 >> 4) as u8
    }

    /// Expiry raises the vector; otherwise it sends a message.
    pub const fn is_direct(self) -> bool {
        self.0 & 1 << 12 != 0
    }

    /// Source of the message, 0 to 15.
    pub const fn sint(self) -> u8 {
        (self.0 >> 16) as u8 & 0xF
    }
}

/// CRASH_CTL: what a guest reports of its crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct CrashCtl(pub u64);

impl CrashCtl {
    /// What a read answers: reports are taken, with text.
    pub const CAPABILITIES: Self = Self(3 << 62);

    /// The write is a report.
    pub const fn is_notify(self) -> bool {
        self.0 & 1 << 63 != 0
    }

    /// P3 is the GPA of a text and P4 its length in bytes.
    pub const fn has_text(self) -> bool {
        self.0 & 1 << 62 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_configuration_of_linux_reads_as_documented() {
        let config = StimerConfig(0x1ED9);
        assert!(config.is_enabled() && config.is_auto_enable() && config.is_direct());
        assert!(!config.is_periodic() && !config.is_lazy());
        assert_eq!(config.vector(), 0xED);
        assert_eq!(config.0 & StimerConfig::RESERVED, 0);
        assert_eq!(StimerConfig(0x5_0000).sint(), 5);
    }

    #[test]
    fn numbers_are_unique_and_ascend() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_overlay_register_keeps_page_and_enable_apart() {
        let register = OverlayPage::enabled_at(Gpn::new(0x1234));
        assert_eq!(register.0, 0x123_4001);
        assert_eq!(register.enabled_page(), Some(Gpn::new(0x1234)));
        assert_eq!(OverlayPage(0x123_4000).enabled_page(), None);
    }
}
