//! The loader's words: one line each, on the firmware's console and on the hypervisor's serial line.
//!
//! The serial line is left before the hypervisor is called, since from then on it is the hypervisor's, and taken
//! back only when there is no launch.
#![expect(unsafe_code, reason = "owns the serial port")]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use config::Console;
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};
use uefi::proto::device_path::{DevicePath, DevicePathNode};
use uefi::{Handle, boot, guid};

/// The port, once it was found to be one.
static SERIAL: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);
/// Whether the port is the hypervisor's.
static IS_LEFT: AtomicBool = AtomicBool::new(false);

/// Writes one line that begins with "verdigris: ".
macro_rules! say {
    ($($arg:tt)*) => { $crate::say::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// Writes `text` as one line to every console.
pub fn line(text: fmt::Arguments<'_>) {
    uefi::println!("verdigris: {text}");
    if IS_LEFT.load(Ordering::Relaxed) {
        return;
    }
    if let Some(uart) = SERIAL.lock().as_mut() {
        // Writing to the serial line cannot fail: a dead line is skipped, see `Serial`.
        let _ = write!(Serial(uart), "verdigris: {text}\r\n");
    }
}

/// From now on lines also go to the hypervisor's serial port, unless the firmware's console already does.
pub fn take_serial_line(console: Console) {
    if firmware_console_is_on(console.port) {
        return;
    }
    // SAFETY: the configuration names this port as a 16550 that is the hypervisor's, and no firmware console is
    // on it. A wrong port in the configuration would write to another device's registers; the person was asked.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(console.port) }) else {
        return;
    };
    let config = Config {
        baud_rate: baud_rate(console),
        ..Config::default()
    };
    match uart.init(config) {
        Ok(()) => *SERIAL.lock() = Some(uart),
        Err(_) => say!(
            "no serial port answers at {:#x}; the hypervisor's log will not be seen",
            console.port
        ),
    }
}

/// The serial line is the hypervisor's from now on.
pub fn leave_serial_line() {
    IS_LEFT.store(true, Ordering::Relaxed);
}

/// There is no hypervisor on this LP after all.
pub fn take_back_serial_line() {
    IS_LEFT.store(false, Ordering::Relaxed);
}

fn baud_rate(console: Console) -> BaudRate {
    BaudRate::from_integer(console.baud())
}

/// Writes to a serial line with a bound on waiting, so that a line nobody drains cannot stop the boot.
struct Serial<'a>(&'a mut Uart16550<PioBackend>);

impl Write for Serial<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            // At 9,600 baud a byte takes about a millisecond; a port read takes about one microsecond.
            for _ in 0..20_000 {
                if self.0.try_send_byte(byte).is_ok() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether one of the firmware's active console outputs is the serial port at `port`.
///
/// Such outputs carry the console splitter's tag, and their device path holds the port's ACPI name, PNP0501,
/// with the port's number as unique id.
fn firmware_console_is_on(port: u16) -> bool {
    const CONSOLE_OUT_DEVICE: uefi::Guid = guid!("d3b36f2c-d551-11d4-9a46-0090273fc14d");
    const PORTS: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
    let Some(number) = PORTS.iter().position(|&known| known == port) else {
        return false;
    };
    let Ok(handles) = boot::locate_handle_buffer(boot::SearchType::ByProtocol(&CONSOLE_OUT_DEVICE))
    else {
        return false;
    };
    handles
        .iter()
        .any(|&handle| has_serial_node(handle, number as u32))
}

fn has_serial_node(handle: Handle, number: u32) -> bool {
    let params = boot::OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: the path is only read, within this call; the splitter's devices do not go away meanwhile.
    let path = unsafe {
        boot::open_protocol::<DevicePath>(params, boot::OpenProtocolAttributes::GetProtocol)
    };
    path.is_ok_and(|path| path.node_iter().any(|node| is_serial_node(node, number)))
}

/// ACPI device path node (type 2, subtype 1) of PNP0501 with unique id `number`.
fn is_serial_node(node: &DevicePathNode, number: u32) -> bool {
    const EISA_PNP0501: u32 = 0x0501_41D0;
    let mut expected = [0u8; 8];
    expected[..4].copy_from_slice(&EISA_PNP0501.to_le_bytes());
    expected[4..].copy_from_slice(&number.to_le_bytes());
    node.device_type().0 == 2 && node.sub_type().0 == 1 && node.data().starts_with(&expected)
}
