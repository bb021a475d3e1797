use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

#[derive(Clone)]
struct Shared<T>(Arc<Mutex<Vec<T>>>);

impl<T> Shared<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Write for Shared<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl InterruptSink for Shared<Interrupt> {
    fn assert(&mut self, interrupt: Interrupt) {
        self.0.lock().unwrap().push(interrupt);
    }
}

struct Bench {
    devices: Devices,
    console: Shared<u8>,
    sent: Shared<Interrupt>,
}

impl Bench {
    /// Devices whose pins 4 and 9 send vectors 0x34 and 0x39.
    fn new() -> Self {
        let (console, sent) = (Shared::new(), Shared::new());
        let mut devices = Devices::new(
            2,
            Box::new(console.clone()),
            Box::new(sent.clone()),
            Box::new(|| 0),
        );
        for (register, value) in [(0x10 + 2 * 4, 0x34), (0x10 + 2 * 9, 0x8039)] {
            devices.mmio_write(map::IO_APIC, &u32::to_le_bytes(register));
            devices.mmio_write(map::IO_APIC + 0x10, &u32::to_le_bytes(value));
        }
        Self {
            devices,
            console,
            sent,
        }
    }

    fn write(&mut self, port: u16, byte: u8) {
        assert_eq!(
            self.devices.io_write(port, 1, byte.into()),
            Outcome::Nothing
        );
    }

    fn read(&mut self, port: u16) -> u8 {
        self.devices.io_read(port, 1) as u8
    }

    fn vectors(&self) -> Vec<u32> {
        self.sent.take().iter().map(|sent| sent.vector).collect()
    }
}

#[test]
fn what_is_absent_reads_all_ones() {
    let mut devices = Bench::new().devices;
    for port in [
        0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x80, 0x2F8, 0x3C0, 0x408, 0xCF8, 0xCFC, 0xFFFF,
    ] {
        assert_eq!(devices.io_write(port, 4, 0x8000_0000), Outcome::Nothing);
        assert_eq!(devices.io_read(port, 1), 0xFF, "port {port:#x}");
        assert_eq!(devices.io_read(port, 2), 0xFFFF, "port {port:#x}");
    }
    assert_eq!(devices.io_read(0xCF8, 4), u32::MAX);
    let mut bytes = [0; 8];
    devices.mmio_read(0xFED0_0000, &mut bytes);
    assert_eq!(bytes, [0xFF; 8]);
}

#[test]
fn linux_takes_com1_for_a_16550a() {
    let mut bench = Bench::new();
    // autoconfig of the 8250 driver: enable register, modem loop, FIFO, scratch.
    bench.write(0x3F9, 0);
    assert_eq!(bench.read(0x3F9), 0);
    bench.write(0x3F9, 0x0F);
    assert_eq!(bench.read(0x3F9) & 0x0F, 0x0F);
    bench.write(0x3F9, 0);
    bench.write(0x3FC, 0x1A);
    assert_eq!(bench.read(0x3FE) & 0xF0, 0x90, "loopback of RTS and OUT2");
    bench.write(0x3FC, 0);
    bench.write(0x3FA, 1);
    assert_eq!(bench.read(0x3FA) >> 6, 3, "FIFOs are on");
    bench.write(0x3FF, 0xA5);
    assert_eq!(bench.read(0x3FF), 0xA5);
    assert_eq!(bench.read(0x3FD) & 0x60, 0x60, "ready to send");
}

#[test]
fn com1_sends_and_receives_with_interrupts() {
    let mut bench = Bench::new();
    for byte in b"ok\n" {
        bench.write(0x3F8, *byte);
    }
    assert_eq!(bench.console.take(), b"ok\n");
    assert_eq!(bench.vectors(), [0; 0], "none was enabled");

    bench.write(0x3F9, 1);
    let room = bench.devices.console_room();
    assert_eq!(bench.devices.console_input(b"ls\r"), 3);
    assert_eq!(bench.vectors(), [0x34]);
    assert_eq!(bench.devices.console_room(), room - 3);
    assert_eq!(bench.read(0x3FA) & 0x0F, 4, "received data");
    let read: Vec<u8> = std::iter::from_fn(|| {
        let is_ready = bench.read(0x3FD) & 1 != 0;
        is_ready.then(|| bench.read(0x3F8))
    })
    .collect();
    assert_eq!(read, b"ls\r");
    let many = vec![b'x'; room + 10];
    assert_eq!(bench.devices.console_input(&many), room);
    assert_eq!(bench.devices.console_input(&many), 0);

    let _ = bench.vectors();
    bench.write(0x3F9, 3);
    assert_eq!(bench.vectors(), [0x34], "ready to send");
}

#[test]
fn the_power_button_interrupts_by_level() {
    let mut bench = Bench::new();
    assert_eq!(bench.devices.io_write(0x402, 2, 1 << 8), Outcome::Nothing);
    bench.devices.press_power_button();
    assert_eq!(bench.vectors(), [0x39]);
    bench.devices.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39], "it was not acknowledged");
    assert_eq!(bench.devices.io_read(0x400, 2), 1 << 8);
    assert_eq!(bench.devices.io_write(0x400, 2, 1 << 8), Outcome::Nothing);
    bench.devices.eoi(0x39);
    assert_eq!(bench.vectors(), [0; 0]);
}

#[test]
fn off_and_reset() {
    let mut devices = Bench::new().devices;
    assert_eq!(devices.io_write(0x404, 2, 1), Outcome::Nothing);
    assert_eq!(devices.io_write(0x404, 2, 0x2001), Outcome::PowerOff);
    assert_eq!(devices.io_write(0x433, 1, 0), Outcome::Nothing);
    assert_eq!(devices.io_write(0x433, 1, 1), Outcome::Reset);
    assert_eq!(devices.io_write(0x64, 1, 0xFE), Outcome::Reset);
    assert_eq!(devices.io_read(0x404, 4) & 0xFFFF, 1, "ACPI mode");
}

#[test]
fn the_io_apic_answers_registers_of_any_width() {
    let mut devices = Bench::new().devices;
    devices.mmio_write(map::IO_APIC, &[1]);
    let mut bytes = [0; 4];
    devices.mmio_read(map::IO_APIC + 0x10, &mut bytes);
    assert_eq!(u32::from_le_bytes(bytes), 0x0017_0020);
    let mut low = [0; 2];
    devices.mmio_read(map::IO_APIC + 0x10, &mut low);
    assert_eq!(low, bytes[..2]);
    devices.mmio_read(map::IO_APIC + 0x11, &mut low);
    assert_eq!(low, [0xFF; 2], "not a register");
}

proptest! {
    #[test]
    fn no_access_is_too_odd(
        accesses in prop::collection::vec((0..5_u8, any::<u16>(), any::<u64>(), any::<u32>()), 0..200),
    ) {
        let mut bench = Bench::new();
        for (kind, port, address, value) in accesses {
            // Mostly the ports that exist.
            let port = if port & 1 == 0 { port } else { 0x3F8 + (port >> 1) % 0x40 };
            let width = [1, 2, 4][value as usize % 3];
            match kind {
                0 => { let _ = bench.devices.io_write(port, width, value); }
                1 => {
                    let read = u64::from(bench.devices.io_read(port, width));
                    prop_assert!(read >> (width * 8) == 0);
                }
                2 => bench.devices.mmio_write(map::IO_APIC + address % 0x1010, &value.to_le_bytes()),
                3 => bench.devices.mmio_read(address, &mut [0; 8]),
                _ => { let _ = bench.devices.console_input(&value.to_le_bytes()); }
            }
        }
    }
}
