//! Registers of a VP, and running it until it stops.

use addr::{PartitionId, VpIndex};
use alloc::vec::Vec;
use machine::insn;
use tlfs::call::{RegisterValue, VpRegisters};
use tlfs::register::RegisterName;
use tlfs::{CallCode, HvError, MessageType};
use x86::{Segment, TableRegister};

use super::call::{self, Reply};
use super::intercept::Intercept;
use super::partition::Child;
use super::synic;

/// The longest that a VP is waited for, in microseconds.
pub const PATIENCE: u64 = 4_000_000;

fn header(id: PartitionId, vp: u32) -> [u8; 16] {
    VpRegisters {
        partition: id,
        vp: VpIndex::new(vp),
        ..VpRegisters::default()
    }
    .encode()
}

/// One call that sets `registers` in order.
pub fn set_registers(id: PartitionId, vp: u32, registers: &[(RegisterName, u128)]) -> Reply {
    let mut list = Vec::with_capacity(registers.len() * RegisterValue::BYTES);
    for (name, value) in registers {
        let element = RegisterValue {
            name: *name,
            value: *value,
            ..RegisterValue::default()
        };
        list.extend_from_slice(&element.encode());
    }
    let count = registers.len() as u16;
    call::rep(
        CallCode::SET_VP_REGISTERS,
        &header(id, vp),
        &list,
        count,
        &mut [],
    )
}

/// One call that reads `names`.
pub fn get_registers(
    id: PartitionId,
    vp: u32,
    names: &[RegisterName],
) -> Result<Vec<u128>, HvError> {
    let list: Vec<u8> = names.iter().flat_map(|name| name.0.to_le_bytes()).collect();
    let mut out = alloc::vec![0; names.len() * 16];
    let count = names.len() as u16;
    call::rep(
        CallCode::GET_VP_REGISTERS,
        &header(id, vp),
        &list,
        count,
        &mut out,
    )
    .status?;
    Ok(out
        .chunks_exact(16)
        .map(|value| u128::from_le_bytes(value.try_into().unwrap_or_default()))
        .collect())
}

/// A segment register as a value.
pub fn segment_value(segment: &Segment) -> u128 {
    u128::from(segment.base)
        | u128::from(segment.limit) << 64
        | u128::from(segment.selector) << 96
        | u128::from(segment.attributes) << 112
}

/// A descriptor table register as a value.
pub fn table_value(table: &TableRegister) -> u128 {
    u128::from(table.limit) << 48 | u128::from(table.base) << 64
}

impl Child {
    /// Sets registers of VP `vp`, with deposits.
    pub fn set(&mut self, vp: u32, registers: &[(RegisterName, u128)]) -> Result<(), HvError> {
        if registers.is_empty() {
            return Ok(());
        }
        self.feed(|child| set_registers(child.id, vp, registers).status)
    }

    /// Sets one register of 64 bits.
    pub fn set_one(&mut self, vp: u32, name: RegisterName, value: u64) -> Result<(), HvError> {
        self.set(vp, &[(name, value.into())])
    }

    /// Reads one register.
    pub fn get(&self, vp: u32, name: RegisterName) -> Result<u128, HvError> {
        get_registers(self.id, vp, &[name]).map(|values| values.first().copied().unwrap_or(0))
    }

    /// Reads one register of 64 bits; all ones when the call failed.
    pub fn reg(&self, vp: u32, name: RegisterName) -> u64 {
        self.get(vp, name).map_or(u64::MAX, |value| value as u64)
    }

    /// Lets VP `vp` go on: answers its intercept, then takes the explicit suspension away.
    pub fn resume(&self, vp: u32) -> Result<(), HvError> {
        let names = [
            RegisterName::INTERCEPT_SUSPEND,
            RegisterName::EXPLICIT_SUSPEND,
        ];
        set_registers(self.id, vp, &names.map(|name| (name, 0))).status
    }

    /// Suspends VP `vp`.
    pub fn suspend(&self, vp: u32) -> Result<(), HvError> {
        set_registers(self.id, vp, &[(RegisterName::EXPLICIT_SUSPEND, 1)]).status
    }

    /// The next intercept of VP `vp`, or `None` after `us` microseconds.
    pub fn stop_within(&self, vp: u32, us: u64) -> Option<Intercept> {
        let id = self.id.get();
        let message = synic::wait(us, |message| message.sender == id && vp_of(message) == vp)?;
        if message.kind == MessageType::OPAQUE_INTERCEPT {
            return Some(self.intercept_page(vp));
        }
        Some(message)
    }

    /// What lies in the intercept page of VP `vp`.
    pub fn intercept_page(&self, vp: u32) -> Intercept {
        let page = self.vps[vp as usize].intercept;
        let mut words = [0; 32];
        for (at, word) in words.iter_mut().enumerate() {
            *word = insn::read_phys64(page + at as u64 * 8);
        }
        Intercept::of(words)
    }

    /// Lets VP `vp` go on until its next intercept.
    pub fn run(&self, vp: u32) -> Option<Intercept> {
        self.run_for(vp, PATIENCE)
    }

    /// The same, for `us` microseconds at most.
    pub fn run_for(&self, vp: u32, us: u64) -> Option<Intercept> {
        if let Err(error) = self.resume(vp) {
            machine::verdict::note(format_args!("resume of VP {vp}: {error:?}"));
            return None;
        }
        self.stop_within(vp, us)
    }

    /// The next intercept of any VP of this child.
    pub fn any_stop(&self, us: u64) -> Option<Intercept> {
        let id = self.id.get();
        let message = synic::wait(us, |message| message.sender == id)?;
        if message.kind == MessageType::OPAQUE_INTERCEPT {
            return Some(self.intercept_page(vp_of(&message)));
        }
        Some(message)
    }
}

/// Every payload begins with the VP.
fn vp_of(message: &Intercept) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&message.payload[..4]);
    u32::from_le_bytes(bytes)
}
