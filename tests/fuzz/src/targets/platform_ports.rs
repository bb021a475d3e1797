//! A child's accesses to ports and registers, and what comes in on its console.

use arbitrary::Arbitrary;
use platform::{Devices, Interrupt, map};

use crate::target;

#[derive(Arbitrary, Debug)]
enum Step {
    In(u16, u8),
    Out(u16, u8, u32),
    Device(u8, u8, u32, bool),
    ReadMemory(u64),
    WriteRegister(u16, u32),
    Console(Vec<u8>),
    Button,
    Eoi(u8),
}

/// Ports that answer.
const PORTS: [u16; 16] = [
    0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF, 0x70, 0x71, 0x400, 0x402, 0x404, 0x405,
    0x433, 0x64,
];

target!(|input: (u64, Vec<Step>)| {
    let (time, steps) = input;
    let mut devices = Devices::new(
        64,
        Box::new(std::io::sink()),
        Box::new(|interrupt: Interrupt| assert!(interrupt.vector < 256)),
        Box::new(move || time),
    );
    for step in steps.iter().take(512) {
        match step {
            Step::In(port, width) => read(&mut devices, *port, *width),
            Step::Out(port, width, value) => {
                let _ = devices.io_write(*port, 1 << (width % 3), *value);
            }
            Step::Device(which, width, value, is_write) => {
                let port = PORTS[usize::from(which % 16)];
                if *is_write {
                    let _ = devices.io_write(port, 1 << (width % 3), *value);
                } else {
                    read(&mut devices, port, *width);
                }
            }
            Step::ReadMemory(gpa) => devices.mmio_read(*gpa, &mut [0; 8]),
            Step::WriteRegister(offset, value) => {
                devices.mmio_write(map::IO_APIC, &(u32::from(*offset) >> 4).to_le_bytes());
                devices.mmio_write(
                    map::IO_APIC + u64::from(offset & 0x50),
                    &value.to_le_bytes(),
                );
            }
            Step::Console(bytes) => {
                let room = devices.console_room();
                let taken = devices.console_input(bytes);
                assert!(taken <= room.min(bytes.len()));
            }
            Step::Button => devices.press_power_button(),
            Step::Eoi(vector) => devices.eoi(*vector),
        }
    }
});

fn read(devices: &mut Devices, port: u16, width: u8) {
    let width = 1 << (width % 3);
    let value = u64::from(devices.io_read(port, width));
    assert_eq!(value >> (width * 8), 0, "bits above the width");
}
