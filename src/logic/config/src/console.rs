//! The console key: a well-known serial port by name, or any by number and speed.

use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A 16550 that the hypervisor owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// First I/O port.
    pub port: u16,
    /// Divisor latch value, at least 1; 1 means 115,200 baud.
    pub divisor: u16,
}

/// Baud rate of divisor 1.
const BASE_BAUD: u32 = 115_200;

impl Console {
    /// The speed in baud.
    pub const fn baud(&self) -> u32 {
        BASE_BAUD / self.divisor as u32
    }

    fn new(port: u16, baud: u32) -> Result<Self, String> {
        if !(0x100..=0xFFF8).contains(&port) {
            return Err(format!(
                "console port {port:#x} is not the port of a serial line; 0x3F8 is com1"
            ));
        }
        if baud == 0 || !BASE_BAUD.is_multiple_of(baud) {
            return Err(format!(
                "{baud} baud cannot be set; use a divisor of 115200, such as 115200, 57600, 38400 or 9600"
            ));
        }
        let divisor =
            u16::try_from(BASE_BAUD / baud).map_err(|_| format!("{baud} baud is too slow"))?;
        Ok(Self { port, divisor })
    }
}

/// The key as it is written: `"none"` becomes `Choice(None)`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice(pub Option<Console>);

struct ChoiceVisitor;

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = Choice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""none", "com1" to "com4", or { port = 0x3F8, baud = 115200 }"#)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Choice, E> {
        let port = match name {
            "none" => return Ok(Choice(None)),
            "com1" => 0x3F8,
            "com2" => 0x2F8,
            "com3" => 0x3E8,
            "com4" => 0x2E8,
            _ => return Err(E::invalid_value(de::Unexpected::Str(name), &self)),
        };
        Ok(Choice(Some(Console { port, divisor: 1 })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice, A::Error> {
        let (mut port, mut baud) = (None, BASE_BAUD);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "port" => port = Some(map.next_value::<u16>()?),
                "baud" => baud = map.next_value::<u32>()?,
                _ => return Err(de::Error::unknown_field(&key, &["port", "baud"])),
            }
        }
        let port = port.ok_or_else(|| de::Error::missing_field("port"))?;
        Console::new(port, baud)
            .map(|console| Choice(Some(console)))
            .map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor)
    }
}
