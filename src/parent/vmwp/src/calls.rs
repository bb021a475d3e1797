//! The hypercalls that a worker makes about its child.

use addr::{PartitionId, VpIndex};
use platform::Interrupt;
use tlfs::call::{AssertInterrupt, RegisterValue, SetProperty, VpRegisters};
use tlfs::register::RegisterName;
use tlfs::{CallCode, Control, PropertyCode};

use crate::slot::{Hypervisor, SlotError};

/// Registers of one call: what fits in its input.
const REGISTERS_MAX: usize = 120;

/// A child, as calls name it.
#[derive(Clone, Copy, Debug)]
pub struct Child(pub PartitionId);

fn reps(code: CallCode, count: usize) -> Control {
    Control(Control::simple(code).0 | (count as u64) << 32)
}

impl Child {
    fn header(self, vp: u32) -> [u8; VpRegisters::BYTES] {
        VpRegisters {
            partition: self.0,
            vp: VpIndex::new(vp),
            ..VpRegisters::default()
        }
        .encode()
    }

    /// Sets registers of a VP, in order.
    ///
    /// # Errors
    /// [`SlotError`]: registers before the one that was refused are set.
    pub fn set_registers(
        self,
        hypervisor: &mut dyn Hypervisor,
        vp: u32,
        registers: &[(RegisterName, u128)],
    ) -> Result<(), SlotError> {
        for part in registers.chunks(REGISTERS_MAX) {
            let mut input = self.header(vp).to_vec();
            for (name, value) in part {
                let element = RegisterValue {
                    name: *name,
                    value: *value,
                    ..RegisterValue::default()
                };
                input.extend(element.encode());
            }
            hypervisor.call(reps(CallCode::SET_VP_REGISTERS, part.len()), &input)?;
        }
        Ok(())
    }

    /// Reads registers of a VP, at most [`REGISTERS_MAX`]. What the hypervisor leaves out is 0.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn registers<const N: usize>(
        self,
        hypervisor: &mut dyn Hypervisor,
        vp: u32,
        names: [RegisterName; N],
    ) -> Result<[u128; N], SlotError> {
        const { assert!(N <= REGISTERS_MAX) };
        let mut input = self.header(vp).to_vec();
        for name in names {
            input.extend(name.0.to_le_bytes());
        }
        let output = hypervisor.call(reps(CallCode::GET_VP_REGISTERS, N), &input)?;
        let mut values = [0; N];
        for (value, bytes) in values.iter_mut().zip(output.as_chunks().0) {
            *value = u128::from_le_bytes(*bytes);
        }
        Ok(values)
    }

    /// Sends an interrupt to local APICs of the child.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn assert(
        self,
        hypervisor: &mut dyn Hypervisor,
        interrupt: &Interrupt,
    ) -> Result<(), SlotError> {
        let input = AssertInterrupt {
            partition: self.0,
            kind: interrupt.kind,
            flags: interrupt.flags,
            destination: interrupt.destination,
            vector: interrupt.vector,
            ..AssertInterrupt::default()
        };
        let control = Control::simple(CallCode::ASSERT_VIRTUAL_INTERRUPT);
        hypervisor.call(control, &input.encode())?;
        Ok(())
    }

    /// Sets a property.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn set_property(
        self,
        hypervisor: &mut dyn Hypervisor,
        code: PropertyCode,
        value: u64,
    ) -> Result<(), SlotError> {
        let input = SetProperty {
            partition: self.0,
            code,
            value,
            ..SetProperty::default()
        };
        let control = Control::simple(CallCode::SET_PARTITION_PROPERTY);
        hypervisor.call(control, &input.encode())?;
        Ok(())
    }
}
