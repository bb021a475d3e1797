//! Instructions of a child on its IO-APIC: whatever they are, they change nothing or what they say.

use insn::Mode;
use arbitrary::Arbitrary;
use platform::mmio::{Registers, carry_out_bytes};
use platform::{Devices, map};
use x86::GpRegs;

use crate::target;

#[derive(Arbitrary, Debug)]
struct Access {
    bytes: [u8; 15],
    count: u8,
    mode: u8,
    offset: u16,
    rip: u64,
    rflags: u64,
}

target!(|input: ([u64; 16], Vec<Access>)| {
    let (gp, accesses) = input;
    let mut devices = Devices::new(
        4,
        Box::new(std::io::sink()),
        Box::new(|interrupt: platform::Interrupt| {
            assert!(interrupt.vector < 256 && interrupt.destination < 256);
        }),
        Box::new(|| 0),
    );
    let mut registers = Registers {
        gp: GpRegs(gp),
        rip: 0,
        rflags: 2,
    };
    for access in accesses.iter().take(64) {
        let mode = [Mode::Bits16, Mode::Bits32, Mode::Bits64][usize::from(access.mode % 3)];
        let bytes = &access.bytes[..usize::from(access.count % 16)];
        (registers.rip, registers.rflags) = (access.rip, access.rflags);
        let before = registers;
        let gpa = map::IO_APIC + u64::from(access.offset % 0x1010);
        match carry_out_bytes(bytes, mode, gpa, &mut registers, &mut devices) {
            Ok(()) => {
                let mask = [0xFFFF, 0xFFFF_FFFF, u64::MAX][usize::from(access.mode % 3)];
                let passed = registers.rip.wrapping_sub(before.rip) & mask;
                assert!(passed <= bytes.len() as u64 || before.rip & !mask != 0);
            }
            Err(_) => assert_eq!(registers, before),
        }
    }
});
