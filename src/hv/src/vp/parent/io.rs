//! Port accesses of the parent that exit: the hypervisor's UART, power management, C-states, PCI configuration.

use bootinfo::AcpiRegister;
use pci_config::{PortOutcome, Width};
use vpcore::seam::{InterceptBitmaps, IoAccess};
use x86::Gp;

use super::ParentVp;
use crate::arch::x86::insn;
use crate::console;
use crate::diagnostics::{self, Counter};
use crate::power::{self, Sleep};
use crate::vp::Activity;

/// PCI configuration mechanism 1.
const CONFIG_ADDRESS: u16 = 0xCF8;
const CONFIG_DATA: u16 = 0xCFC;
/// Ports of a 16550.
const UART_PORTS: u16 = 8;

/// Which port an access hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Uart,
    PowerControl {
        /// Its first port.
        first: u16,
        /// Block b.
        is_b: bool,
    },
    CState,
    PciConfig,
    /// Trapped only because a wider access could reach a device.
    None,
}

/// Makes every port exit that [`ParentVp::io`] answers.
pub fn trap_ports(bitmaps: &mut dyn InterceptBitmaps, has_ecam_shim: bool) {
    if let Some(first) = console::port() {
        (first..first.saturating_add(UART_PORTS)).for_each(|port| bitmaps.trap_port(port));
    }
    let power = power::registers();
    for block in [power.pm1a_control, power.pm1b_control] {
        if let Some(port) = io_port(&block) {
            bitmaps.trap_port(port);
            bitmaps.trap_port(port.saturating_add(1));
        }
    }
    if let Some(level_2) = c_state_port() {
        bitmaps.trap_port(level_2);
        bitmaps.trap_port(level_2.saturating_add(1));
    }
    if has_ecam_shim {
        (CONFIG_ADDRESS..CONFIG_DATA + 4).for_each(|port| bitmaps.trap_port(port));
    }
}

fn io_port(register: &AcpiRegister) -> Option<u16> {
    (register.space == AcpiRegister::IO)
        .then(|| u16::try_from(register.address).ok())
        .flatten()
        .filter(|&p| p != 0)
}

fn c_state_port() -> Option<u16> {
    u16::try_from(power::registers().p_lvl2_port)
        .ok()
        .filter(|&port| port != 0)
}

/// The device that `width` bytes at `port` touch; of two, the one with more to lose.
fn device(port: u16, width: u8) -> Device {
    let power = power::registers();
    let touches = |first: Option<u16>, count: u16| {
        first.filter(|&first| {
            let (first, port) = (u32::from(first), u32::from(port));
            port < first + u32::from(count) && first < port + u32::from(width)
        })
    };
    if let Some(first) = touches(io_port(&power.pm1a_control), 2) {
        Device::PowerControl { first, is_b: false }
    } else if let Some(first) = touches(io_port(&power.pm1b_control), 2) {
        Device::PowerControl { first, is_b: true }
    } else if touches(console::port(), UART_PORTS).is_some() {
        Device::Uart
    } else if touches(c_state_port(), 2).is_some() {
        Device::CState
    } else if touches(Some(CONFIG_ADDRESS), 8).is_some() {
        Device::PciConfig
    } else {
        Device::None
    }
}

impl ParentVp {
    /// Answers one port access.
    pub(super) fn io(&mut self, access: IoAccess) {
        if access.is_string {
            // None of these devices is driven so, and the memory side would need the guest's segments.
            self.note(format_args!(
                "string access to port {:#x} refused",
                access.port
            ));
            self.raise_gp();
            return;
        }
        let Some(next) = access.next_rip.or_else(|| self.next_rip()) else {
            return;
        };
        if access.is_in {
            let value = self.port_in(access.port, access.width);
            let old = self.backend.gp().get(Gp::Rax);
            let new = match access.width {
                1 => (old & !0xFF) | u64::from(value & 0xFF),
                2 => (old & !0xFFFF) | u64::from(value & 0xFFFF),
                _ => u64::from(value),
            };
            self.backend.gp_mut().set(Gp::Rax, new);
        } else {
            let value = self.backend.gp().get(Gp::Rax) as u32;
            self.port_out(access.port, access.width, value);
        }
        self.retire(next);
    }

    fn port_in(&mut self, port: u16, width: u8) -> u32 {
        match device(port, width) {
            Device::Uart => uart_in(port),
            Device::CState => {
                self.counters.add(Counter::CState);
                self.activity = Activity::Idle { until: u64::MAX };
                0
            }
            Device::PciConfig => self.pci_in(port, width),
            Device::PowerControl { .. } | Device::None => hardware_in(port, width),
        }
    }

    fn port_out(&mut self, port: u16, width: u8, value: u32) {
        match device(port, width) {
            Device::Uart => {}
            Device::PowerControl { first, is_b } => {
                // The part of the access that lands in the 16-bit register. A byte that is not written counts as
                // zero: SLP_TYP and SLP_EN share one.
                let offset = i32::from(port) - i32::from(first);
                let shift = offset.unsigned_abs() * 8;
                let written = if offset < 0 {
                    value >> shift
                } else {
                    value << shift
                };
                if self.may_write_power_control(written as u16, is_b) {
                    hardware_out(port, width, value);
                }
            }
            Device::PciConfig => self.pci_out(port, width, value),
            Device::CState | Device::None => hardware_out(port, width, value),
        }
    }

    /// PM1 control: a request to sleep is power-off or nothing.
    fn may_write_power_control(&mut self, written: u16, is_b: bool) -> bool {
        match power::judge(written, is_b) {
            Sleep::None => true,
            Sleep::SoftOff => {
                log::info!("the parent switches the machine off");
                diagnostics::log_counters();
                true
            }
            Sleep::Refused => {
                self.note(format_args!(
                    "sleep request {written:#x} at PM1 control refused"
                ));
                false
            }
        }
    }

    fn pci_in(&mut self, port: u16, width: u8) -> u32 {
        let Some(config_width) = config_width(width) else {
            return u32::MAX;
        };
        let address = self.partition.config_address.lock();
        match address.read(&mut PciPorts, port, config_width) {
            PortOutcome::Done(value) => value,
            PortOutcome::Ordinary => hardware_in(port, width),
        }
    }

    fn pci_out(&mut self, port: u16, width: u8, value: u32) {
        let Some(config_width) = config_width(width) else {
            return;
        };
        let mut address = self.partition.config_address.lock();
        if address.write(&mut PciPorts, port, config_width, value) == PortOutcome::Ordinary {
            hardware_out(port, width, value);
        }
    }
}

/// The machine's configuration ports. Used under the lock of the parent's shadow of CF8.
pub(super) struct PciPorts;

/// The hypervisor's UART as the parent reads it: always ready to send, never a byte received. Firmware that found it
/// before the launch goes on polling it, and all ones would be an endless stream of bytes; a driver that looks for
/// it later finds registers that keep nothing, so no UART.
fn uart_in(port: u16) -> u32 {
    const NO_INTERRUPT: u32 = 0x01;
    const TRANSMITTER_EMPTY: u32 = 0x60;
    match console::port().map(|first| port.wrapping_sub(first)) {
        Some(2) => NO_INTERRUPT,
        Some(5) => TRANSMITTER_EMPTY,
        _ => 0,
    }
}

fn config_width(bytes: u8) -> Option<Width> {
    match bytes {
        1 => Some(Width::Byte),
        2 => Some(Width::Word),
        4 => Some(Width::Dword),
        _ => None,
    }
}

fn hardware_in(port: u16, width: u8) -> u32 {
    match width {
        1 => insn::inb(port).into(),
        2 => insn::inw(port).into(),
        _ => insn::inl(port),
    }
}

fn hardware_out(port: u16, width: u8, value: u32) {
    match width {
        1 => insn::outb(port, value as u8),
        2 => insn::outw(port, value as u16),
        _ => insn::outl(port, value),
    }
}

impl pci_config::ConfigPorts for PciPorts {
    fn write_address(&mut self, address: u32) {
        insn::outl(CONFIG_ADDRESS, address);
    }

    fn read_data(&mut self, offset: u16, width: Width) -> u32 {
        hardware_in(CONFIG_DATA + offset, width.bytes())
    }

    fn write_data(&mut self, offset: u16, width: Width, value: u32) {
        hardware_out(CONFIG_DATA + offset, width.bytes(), value);
    }
}
