//! The shim against a machine of a few functions that is strict about how its ports are used.

use addr::Gpa;
use pci_config::{ConfigAddress, ConfigPorts, ConfigRegister, EcamWindow, PortOutcome, Width};
use proptest::prelude::*;

const BASE: u64 = 0xE000_0000;

/// Bus 0 to 1, devices 0 and 31, functions 0 and 7 exist; all others read as ones.
struct Machine {
    spaces: Vec<(u32, [u8; 256])>,
    address: Option<u32>,
    accesses: Vec<(u32, u16, Width)>,
}

impl Machine {
    fn new() -> Self {
        let mut spaces = Vec::new();
        for bus in 0..2_u32 {
            for device in [0, 31_u32] {
                for function in [0, 7_u32] {
                    let key = (bus << 16) | (device << 11) | (function << 8);
                    let mut space = [0; 256];
                    for (index, byte) in space.iter_mut().enumerate() {
                        *byte = (key >> 8) as u8 ^ (index as u8).wrapping_mul(37) ^ bus as u8;
                    }
                    spaces.push((key, space));
                }
            }
        }
        Self {
            spaces,
            address: None,
            accesses: Vec::new(),
        }
    }

    /// The bytes that an access reaches. An address is good for one access: another processor may
    /// have changed it since.
    fn reach(&mut self, offset: u16, width: Width) -> Option<&mut [u8]> {
        let bytes = usize::from(width.bytes());
        assert!(
            usize::from(offset) + bytes <= 4,
            "data access leaves the ports"
        );
        assert_eq!(usize::from(offset) % bytes, 0, "data access is not aligned");
        let address = self.address.take().expect("data access without an address");
        self.accesses.push((address, offset, width));
        if address >> 31 == 0 {
            return None;
        }
        assert_eq!(address & 0x7F00_0003, 0, "reserved bits of the address");
        let start = (address & 0xFC) as usize + usize::from(offset);
        let space = self
            .spaces
            .iter_mut()
            .find(|(key, _)| *key == address & 0xFF_FF00)?;
        space.1.get_mut(start..start + bytes)
    }

    fn byte(&self, key: u32, register: usize) -> u8 {
        self.spaces
            .iter()
            .find(|(k, _)| *k == key)
            .map_or(0xFF, |(_, space)| space[register])
    }
}

impl ConfigPorts for Machine {
    fn write_address(&mut self, value: u32) {
        self.address = Some(value);
    }

    fn read_data(&mut self, offset: u16, width: Width) -> u32 {
        let Some(bytes) = self.reach(offset, width) else {
            return u32::MAX;
        };
        let mut value = [0xAA; 4]; // Garbage above the width, as the trait allows.
        value[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(value)
    }

    fn write_data(&mut self, offset: u16, width: Width, value: u32) {
        if let Some(bytes) = self.reach(offset, width) {
            let length = bytes.len();
            bytes.copy_from_slice(&value.to_le_bytes()[..length]);
        }
    }
}

fn window() -> EcamWindow {
    EcamWindow::new(Gpa::new(BASE), 1).unwrap()
}

#[test]
fn addresses_decode_to_bus_device_function_register() {
    let register = window()
        .decode(Gpa::new(BASE + (1 << 20) + (31 << 15) + (7 << 12) + 0x0FE))
        .unwrap();
    assert_eq!(
        register,
        ConfigRegister {
            bus: 1,
            device: 31,
            function: 7,
            register: 0xFE
        }
    );
    assert_eq!(register.address_word(), Some(0x8001_FFFC));
    assert_eq!(
        ConfigRegister {
            register: 256,
            ..register
        }
        .address_word(),
        None
    );
    assert_eq!(window().decode(Gpa::new(BASE - 1)), None);
    assert!(window().contains(Gpa::new(BASE + (2 << 20) - 1)));
    assert!(!window().contains(Gpa::new(BASE + (2 << 20))));
}

#[test]
fn a_window_must_be_aligned_and_fit() {
    assert_eq!(EcamWindow::new(Gpa::new(BASE + 0x1000), 0), None);
    let last = Gpa::new(u64::MAX - 0xF_FFFF);
    assert_eq!(EcamWindow::new(last, 1), None);
    let window = EcamWindow::new(last, 0).unwrap();
    assert!(window.contains(Gpa::new(u64::MAX)));
    assert_eq!(
        window.read(&mut Machine::new(), Gpa::new(u64::MAX), 8) & 0xFF,
        0xFF
    );
}

#[test]
fn aligned_accesses_are_one_port_access_and_eight_bytes_two() {
    let mut machine = Machine::new();
    window().read(&mut machine, Gpa::new(BASE + 0x10), 4);
    assert_eq!(machine.accesses, [(0x8000_0010, 0, Width::Dword)]);
    machine.accesses.clear();
    window().write(&mut machine, Gpa::new(BASE + 0x12), 2, 0x1234);
    assert_eq!(machine.accesses, [(0x8000_0010, 2, Width::Word)]);
    machine.accesses.clear();
    window().read(&mut machine, Gpa::new(BASE + 0x10), 8);
    assert_eq!(
        machine.accesses,
        [
            (0x8000_0010, 0, Width::Dword),
            (0x8000_0014, 0, Width::Dword)
        ]
    );
}

#[test]
fn extended_registers_read_as_ones_and_swallow_writes() {
    let mut machine = Machine::new();
    assert_eq!(
        window().read(&mut machine, Gpa::new(BASE + 0x100), 4),
        0xFFFF_FFFF
    );
    window().write(&mut machine, Gpa::new(BASE + 0xFFC), 4, 0);
    assert!(machine.accesses.is_empty());
    // An access across the border reaches only the part below it.
    let value = window().read(&mut machine, Gpa::new(BASE + 0xFE), 4);
    assert_eq!(value >> 16, 0xFFFF);
    assert_eq!(value & 0xFF, u64::from(machine.byte(0, 0xFE)));
}

#[test]
fn ecam_accesses_leave_the_parents_address_alone() {
    let mut machine = Machine::new();
    let mut address = ConfigAddress::default();
    assert_eq!(
        address.write(&mut machine, 0xCF8, Width::Dword, 0x8000_F804),
        PortOutcome::Done(())
    );
    window().read(&mut machine, Gpa::new(BASE + 0x40), 4);
    assert_eq!(
        address.read(&mut machine, 0xCF8, Width::Dword),
        PortOutcome::Done(0x8000_F804)
    );
    let expected = u32::from(machine.byte(0xF800, 5));
    assert_eq!(
        address.read(&mut machine, 0xCFD, Width::Byte),
        PortOutcome::Done(expected)
    );
    assert_eq!(
        address.write(&mut machine, 0xCFE, Width::Word, 0xFFFF_BEEF),
        PortOutcome::Done(())
    );
    assert_eq!(
        (machine.byte(0xF800, 6), machine.byte(0xF800, 7)),
        (0xEF, 0xBE)
    );
}

#[test]
fn narrow_accesses_of_the_address_ports_are_ordinary() {
    let mut machine = Machine::new();
    let mut address = ConfigAddress::new(0x8000_0000);
    for (port, width) in [
        (0xCFB, Width::Byte),
        (0xCF9, Width::Byte),
        (0xCF8, Width::Byte),
        (0xCF8, Width::Word),
        (0xCFA, Width::Dword),
        (0xCFE, Width::Dword),
        (0xCFF, Width::Word),
        (0xD00, Width::Byte),
        (0xFFFF, Width::Dword),
    ] {
        assert_eq!(
            address.write(&mut machine, port, width, 6),
            PortOutcome::Ordinary
        );
        assert_eq!(
            address.read(&mut machine, port, width),
            PortOutcome::Ordinary
        );
    }
    assert_eq!(address.get(), 0x8000_0000);
    assert!(machine.accesses.is_empty());
}

#[test]
fn the_type_one_probe_of_linux_succeeds() {
    let mut machine = Machine::new();
    let mut address = ConfigAddress::new(0x1234);
    assert_eq!(
        address.write(&mut machine, 0xCFB, Width::Byte, 1),
        PortOutcome::Ordinary
    );
    let PortOutcome::Done(saved) = address.read(&mut machine, 0xCF8, Width::Dword) else {
        panic!()
    };
    let _ = address.write(&mut machine, 0xCF8, Width::Dword, 0x8000_0000);
    assert_eq!(
        address.read(&mut machine, 0xCF8, Width::Dword),
        PortOutcome::Done(0x8000_0000)
    );
    let _ = address.write(&mut machine, 0xCF8, Width::Dword, saved);
    assert_eq!(address.get(), 0x1234);
}

proptest! {
    /// Whatever the alignment and size, a read gives the bytes that single reads would give.
    #[test]
    fn reads_are_the_bytes_of_the_functions(offset in 0_u64..(2 << 20) + 16, bytes in 0_u8..=12) {
        let mut machine = Machine::new();
        let value = window().read(&mut machine, Gpa::new(BASE + offset), bytes);
        let count = usize::from(bytes.min(8));
        for index in 0..8 {
            let expected = if index >= count {
                0
            } else {
                let at = offset + index as u64;
                let (function, register) = ((at >> 12) as u32, (at & 0xFFF) as usize);
                let inside = at < 2 << 20 && register < 256;
                if inside { machine.byte(function << 8, register) } else { 0xFF }
            };
            prop_assert_eq!(value.to_le_bytes()[index], expected);
        }
        prop_assert!(machine.accesses.len() <= 8);
    }

    /// A write changes exactly the bytes it names.
    #[test]
    fn writes_change_the_named_bytes_only(
        function in 0_usize..8, register in 0_u64..264, bytes in 1_u8..=8, value: u64,
    ) {
        let mut machine = Machine::new();
        let before = machine.spaces.clone();
        let key = before[function].0;
        let start = BASE + (u64::from(key) << 4) + register;
        window().write(&mut machine, Gpa::new(start), bytes, value);
        for (index, (space_key, space)) in machine.spaces.iter().enumerate() {
            for (at, byte) in space.iter().enumerate() {
                let written = (at as u64).checked_sub(register).filter(|&n| n < u64::from(bytes));
                let expected = match written {
                    Some(n) if *space_key == key => value.to_le_bytes()[n as usize],
                    _ => before[index].1[at],
                };
                prop_assert_eq!(*byte, expected);
            }
        }
    }
}
