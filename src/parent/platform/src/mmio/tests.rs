use addr::{Gpa, Gva, VpIndex};
use insn::LENGTH_MAX;
use proptest::prelude::*;
use tlfs::intercept::AccessType;
use x86::{Gp, Segment};

use super::*;
use crate::map;

fn devices() -> Devices {
    Devices::new(
        1,
        Box::new(std::io::sink()),
        Box::new(|_| {}),
        Box::new(|| 0),
    )
}

/// An intercept in 64-bit mode of the instruction that `bytes` begin with.
fn intercept(bytes: &[u8], gpa: u64) -> MemoryIntercept {
    let mut instruction = [0; 16];
    instruction[..bytes.len()].copy_from_slice(bytes);
    MemoryIntercept {
        header: InterceptHeader {
            vp: VpIndex::new(0),
            length_and_cr8: 0,
            access: AccessType::Write,
            state: ExecutionState::PE | ExecutionState::LMA,
            cs: Segment {
                attributes: Segment::LONG,
                ..Segment::default()
            },
            rip: 0x1000,
            rflags: 2,
        },
        cache_type: 0,
        instruction_count: bytes.len() as u8,
        info: MemoryAccess::GVA_VALID | MemoryAccess::GVA_GPA_VALID,
        tpr: 0,
        reserved: Default::default(),
        gva: Gva::new(0xFFFF_FFFF_FF5F_C000),
        gpa: Gpa::new(gpa),
        instruction,
    }
}

fn registers() -> Registers {
    Registers {
        rip: 0xFFFF_FFFF_8100_0000,
        rflags: 2,
        ..Registers::default()
    }
}

#[test]
fn linux_reads_a_register_of_the_io_apic() {
    let (mut devices, mut registers) = (devices(), registers());
    // mov %eax,(%rdi); then mov 0x10(%rdi),%eax.
    registers.gp.set(Gp::Rax, 1);
    let store = intercept(&[0x89, 0x07], map::IO_APIC);
    assert_eq!(carry_out(&store, &mut registers, &mut devices), Ok(()));
    assert_eq!(registers.rip, 0xFFFF_FFFF_8100_0002);
    registers.gp.set(Gp::Rax, u64::MAX);
    let load = intercept(&[0x8B, 0x47, 0x10, 0xC3], map::IO_APIC + 0x10);
    assert_eq!(carry_out(&load, &mut registers, &mut devices), Ok(()));
    assert_eq!(registers.gp.get(Gp::Rax), 0x0017_0020);
    assert_eq!(registers.rip, 0xFFFF_FFFF_8100_0005);
}

#[test]
fn an_immediate_is_stored() {
    let (mut devices, mut registers) = (devices(), registers());
    // movl $1,(%rdi) selects the version.
    let store = intercept(&[0xC7, 0x07, 1, 0, 0, 0], map::IO_APIC);
    assert_eq!(carry_out(&store, &mut registers, &mut devices), Ok(()));
    let mut bytes = [0; 4];
    devices.mmio_read(map::IO_APIC + 0x10, &mut bytes);
    assert_eq!(bytes, 0x0017_0020_u32.to_le_bytes());
}

#[test]
fn what_cannot_be_carried_out_changes_nothing() {
    let (mut devices, before) = (devices(), registers());
    let mut registers = before;
    let refused = |bytes: &[u8], registers: &mut _, devices: &mut _| {
        carry_out(&intercept(bytes, map::IO_APIC), registers, devices)
    };
    let error = refused(&[0x8B], &mut registers, &mut devices);
    assert_eq!(error, Err(MmioError::Incomplete));
    // movsl; movups (%rax),%xmm0.
    for bytes in [&[0xA5][..], &[0x0F, 0x10, 0x00]] {
        let error = refused(bytes, &mut registers, &mut devices);
        assert_eq!(error, Err(MmioError::Unsupported));
    }
    let mut walk = intercept(&[0x8B, 0x07], map::IO_APIC);
    walk.info = MemoryAccess::GVA_VALID;
    let error = carry_out(&walk, &mut registers, &mut devices);
    assert_eq!(error, Err(MmioError::PageTable));
    assert_eq!(registers, before);
}

#[test]
fn modes_follow_the_intercept() {
    let mut header = intercept(&[], 0).header;
    assert_eq!(mode(&header), Mode::Bits64);
    header.cs.attributes = Segment::DEFAULT_32;
    assert_eq!(mode(&header), Mode::Bits32);
    header.state = ExecutionState::empty();
    header.cs.attributes = 0;
    assert_eq!(mode(&header), Mode::Bits16);
    assert_eq!(advance(0xFFFF_FFFF, 2, Mode::Bits32), 1);
    assert_eq!(advance(0xFFFF, 2, Mode::Bits16), 1);
    assert_eq!(advance(0xFFFF_FFFF, 2, Mode::Bits64), 0x1_0000_0001);
}

proptest! {
    #[test]
    fn any_bytes_at_any_address(
        bytes in prop::collection::vec(any::<u8>(), 0..=LENGTH_MAX), count in any::<u8>(),
        offset in 0..0x1010_u64, gp in any::<[u64; 16]>(), rip in any::<u64>(), rflags in any::<u64>(),
    ) {
        let mut devices = devices();
        let before = Registers { gp: GpRegs(gp), rip, rflags };
        let mut registers = before;
        let mut intercept = intercept(&bytes, map::IO_APIC + offset);
        intercept.instruction_count = count;
        if carry_out(&intercept, &mut registers, &mut devices).is_err() {
            prop_assert_eq!(registers, before);
        }
    }
}
