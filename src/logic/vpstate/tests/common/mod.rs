//! A VP without hardware.
#![allow(dead_code, reason = "each test file uses a part of it")]

use addr::{ApicId, Spa};
use apic::{Apic, Effect, Features, Inbox, Timing};
use std::collections::BTreeMap;
use tlfs::HvError;
use vpcore::seam::{Event, Exit, Lp, Register, SegmentName, TableName, VpBackend, Window};
use vpstate::registers::{Extended, Switched, Synthetic};
use vpstate::xsave::Layout;
use vpstate::{Limits, Reasons, Registers, Stored, Suspend};
use x86::cpuid::CpuidResult;
use x86::{GpRegs, Segment, TableRegister};

#[derive(Default)]
pub struct Backend {
    pub gp: GpRegs,
    pub registers: BTreeMap<String, u64>,
    pub segments: BTreeMap<String, Segment>,
    pub tables: BTreeMap<String, TableRegister>,
    pub interrupted: Option<Event>,
    pub cr8: u8,
    pub cpl: u8,
}

impl VpBackend for Backend {
    fn load(&mut self, _: &mut Lp) {}
    fn unload(&mut self) {}
    fn frame(&self) -> Spa {
        Spa::new(0)
    }
    fn attach(&mut self) -> Option<Spa> {
        None
    }

    fn detach(&mut self, _: Option<Spa>) {}
    fn run(&mut self) -> Exit {
        Exit::Hlt
    }
    fn gp(&self) -> &GpRegs {
        &self.gp
    }
    fn gp_mut(&mut self) -> &mut GpRegs {
        &mut self.gp
    }
    fn get(&self, register: Register) -> u64 {
        self.registers
            .get(&format!("{register:?}"))
            .copied()
            .unwrap_or(0)
    }
    fn set(&mut self, register: Register, value: u64) {
        self.registers.insert(format!("{register:?}"), value);
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.segments
            .get(&format!("{name:?}"))
            .copied()
            .unwrap_or_default()
    }
    fn set_segment(&mut self, name: SegmentName, value: Segment) {
        self.segments.insert(format!("{name:?}"), value);
    }
    fn table(&self, name: TableName) -> TableRegister {
        self.tables
            .get(&format!("{name:?}"))
            .copied()
            .unwrap_or_default()
    }
    fn set_table(&mut self, name: TableName, value: TableRegister) {
        self.tables.insert(format!("{name:?}"), value);
    }
    fn cpl(&self) -> u8 {
        self.cpl
    }
    fn next_rip(&self) -> Option<u64> {
        None
    }
    fn retire(&mut self, _: u64) {}
    fn interrupted_event(&mut self) -> Option<Event> {
        self.interrupted.take()
    }
    fn undelivered_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn inject(&mut self, _: Event) {}
    fn can_take_interrupt(&self) -> bool {
        true
    }
    fn can_take_nmi(&self) -> bool {
        true
    }
    fn reset_events(&mut self) {}
    fn trap_exceptions(&mut self, _: u32) {}
    fn fault_address(&self) -> u64 {
        0
    }
    fn request_window(&mut self, _: Window, _: bool) {}
    fn show_cr8(&mut self, value: u8) {
        self.cr8 = value;
    }
    fn flush_tlb(&mut self) {}
    fn flush_guest_tlb(&mut self) {}
}

pub struct Memory {
    pub area: Vec<u8>,
    pub breakpoints: [u64; 4],
    pub xcr0: u64,
    pub tsc_aux: u64,
    pub spec_ctrl: u64,
}

impl Extended for Memory {
    fn register(&mut self, which: Switched) -> Option<&mut u64> {
        match which {
            Switched::Breakpoint(index) => self.breakpoints.get_mut(usize::from(index)),
            Switched::Xcr0 => Some(&mut self.xcr0),
            Switched::TscAux => Some(&mut self.tsc_aux),
            Switched::SpecCtrl => Some(&mut self.spec_ctrl),
        }
    }
    fn area(&mut self) -> &mut [u8] {
        &mut self.area
    }
}

#[derive(Default)]
pub struct Synic(pub BTreeMap<u32, u64>);

impl Synthetic for Synic {
    fn read(&mut self, msr: u32) -> Result<u64, HvError> {
        Ok(self.0.get(&msr).copied().unwrap_or(0))
    }
    fn write(&mut self, msr: u32, value: u64) -> Result<(), HvError> {
        self.0.insert(msr, value);
        Ok(())
    }
}

pub const FEATURES: Features = Features {
    x2apic: true,
    tsc_deadline: true,
    cmci: false,
    physical_bits: 40,
};

/// A processor with everything up to AVX-512 and PKRU.
pub fn host(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = |eax, ebx, ecx, edx| CpuidResult { eax, ebx, ecx, edx };
    match (leaf, subleaf) {
        (0, _) => r(0x20, 0x756E_6547, 0x6C65_746E, 0x4965_6E69),
        (0x8000_0000, _) => r(0x8000_0028, 0, 0, 0),
        (0x8000_0008, _) => r(0x302E, 0, 0, 0),
        (0xD, 0) => r(0x6_02FF, 0, 11008, 0),
        (0xD, 1) => r(0xF, 0, 0x1900, 0),
        (0xD, 2) => r(256, 576, 0, 0),
        (0xD, 3) => r(64, 960, 0, 0),
        (0xD, 4) => r(64, 1024, 0, 0),
        (0xD, 5) => r(64, 1088, 0, 0),
        (0xD, 6) => r(512, 1152, 0, 0),
        (0xD, 7) => r(1024, 1664, 0, 0),
        (0xD, 9) => r(8, 2688, 0, 0),
        (0xD, 17) => r(64, 2752, 2, 0),
        (0xD, 18) => r(8192, 2816, 6, 0),
        (0xD, _) => r(0, 0, 0, 0),
        (4, 0) => r(0xFC00_4121, 0x01C0_003F, 0x3F, 0),
        (4, 3) => r(0xFC1F_C163, 0x01C0_003F, 0x3F, 4),
        _ => r(!0, !0, !0, !0),
    }
}

pub struct Vp {
    pub backend: Backend,
    pub memory: Memory,
    pub synic: Synic,
    pub apic: Apic,
    pub inbox: Inbox,
    pub suspend: Suspend,
    pub stored: Stored,
    pub interrupted: Option<Event>,
    pub raised: Option<Event>,
    pub layout: Layout,
    pub limits: Limits,
    pub now: u64,
}

/// A fresh image of either format.
pub fn area(layout: &Layout, is_compacted: bool) -> Vec<u8> {
    let mut area = vec![0; 4096];
    area[..2].copy_from_slice(&0x37F_u16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1F80_u32.to_le_bytes());
    if is_compacted {
        area[520..528].copy_from_slice(&(layout.states() | 1 << 63).to_le_bytes());
    }
    area
}

impl Vp {
    pub fn new() -> Self {
        let layout = Layout::of(host, 0xFFFF);
        let limits = Limits {
            physical_bits: 40,
            ..Limits::of(|leaf, subleaf| {
                if (leaf, subleaf) == (7, 0) {
                    // Without LA57.
                    CpuidResult {
                        ecx: !(1 << 16),
                        ..host(7, 0)
                    }
                } else if leaf == 0xD && subleaf == 0 {
                    CpuidResult {
                        eax: 0x2E7,
                        ..host(leaf, subleaf)
                    }
                } else {
                    host(leaf, subleaf)
                }
            })
        };
        let mut apic = Apic::new(
            ApicId::new(3),
            false,
            FEATURES,
            Timing::new(3_000_000_000, 1_000_000_000).unwrap(),
        );
        assert_eq!(apic.write(0xF0, 0x1FF, 0), Effect::SoftwareEnabled);
        Self {
            backend: Backend::default(),
            memory: Memory {
                area: area(&layout, true),
                breakpoints: [0; 4],
                xcr0: 1,
                tsc_aux: 0,
                spec_ctrl: 0,
            },
            synic: Synic::default(),
            apic,
            inbox: Inbox::waiting(),
            suspend: Suspend::created(false, Reasons::NONE),
            stored: Stored::new(),
            interrupted: None,
            raised: None,
            layout,
            limits,
            now: 1_000_000,
        }
    }

    pub fn registers(&mut self) -> Registers<'_, Memory, Synic> {
        Registers {
            backend: &mut self.backend,
            extended: &mut self.memory,
            synthetic: &mut self.synic,
            apic: &mut self.apic,
            inbox: &self.inbox,
            suspend: &self.suspend,
            stored: &mut self.stored,
            interrupted: &mut self.interrupted,
            raised: &mut self.raised,
            layout: &self.layout,
            limits: &self.limits,
            now: self.now,
        }
    }
}
