//! Calls about VPs, their interrupts and intercepts.

use alloc::vec::Vec;

use addr::VpIndex;
use tlfs::call::*;
use tlfs::register::RegisterName;
use tlfs::{CallCode, HvError};

use super::PARAMETER;
use crate::child::guest::Guest;
use crate::group::calls::case::Case;

/// The cases.
pub fn cases(guest: &Guest) -> Vec<Case> {
    let id = guest.id;
    let vp = VpIndex::new(0);
    let block = |bytes: &[u8]| bytes.to_vec();
    let only = PartitionOnly { partition: id };
    let new_vp = CreateVp {
        partition: id,
        vp: VpIndex::new(1),
        ..CreateVp::default()
    };
    let old_vp = DeleteVp {
        partition: id,
        vp: VpIndex::new(1),
        ..DeleteVp::default()
    };
    let registers = VpRegisters {
        partition: id,
        vp,
        ..VpRegisters::default()
    };
    let rax = RegisterValue {
        name: RegisterName::RAX,
        value: 5,
        ..RegisterValue::default()
    };
    let assert = AssertInterrupt {
        partition: id,
        kind: InterruptType::Fixed,
        vector: 0x50,
        ..AssertInterrupt::default()
    };
    let intercept = InstallIntercept {
        partition: id,
        access: AccessMask::empty(),
        kind: InterceptType::Cpuid,
        parameter: 0x8888,
    };
    let cpuid = RegisterCpuidResult {
        partition: id,
        vp: VP_ANY,
        leaf: 0x8000_0003,
        ..RegisterCpuidResult::default()
    };
    let values = GetCpuidValues {
        partition: id,
        vp,
        ..GetCpuidValues::default()
    };
    alloc::vec![
        Case::new("CreateVp", CallCode::CREATE_VP, &new_vp.encode())
            .bad(8, 4, 0)
            .wrong(8, 4, 64, HvError::INVALID_VP_INDEX)
            .wrong(8, 4, u64::from(u32::MAX), HvError::INVALID_VP_INDEX),
        Case::new("DeleteVp", CallCode::DELETE_VP, &old_vp.encode())
            .vp()
            .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "GetVpRegisters",
            CallCode::GET_VP_REGISTERS,
            &registers.encode()
        )
        .vp()
        .list(&block(&RegisterName::RAX.0.to_le_bytes()), 1)
        .out(16)
        .wrong(12, 1, 1, PARAMETER)
        .wrong(13, 1, 1, PARAMETER),
        Case::new(
            "SetVpRegisters",
            CallCode::SET_VP_REGISTERS,
            &registers.encode()
        )
        .vp()
        .list(&rax.encode(), 1)
        .wrong(12, 1, 1, PARAMETER)
        .wrong(15, 1, 1, PARAMETER),
        Case::new(
            "ClearVirtualInterrupt",
            CallCode::CLEAR_VIRTUAL_INTERRUPT,
            &only.encode()
        ),
        Case::new(
            "AssertVirtualInterrupt",
            CallCode::ASSERT_VIRTUAL_INTERRUPT,
            &assert.encode()
        )
        .wrong(8, 4, 3, PARAMETER)
        .wrong(12, 4, 4, PARAMETER)
        .bad(24, 4, 0x100)
        .wrong(28, 1, 1, PARAMETER)
        .wrong(29, 1, 1, PARAMETER),
        Case::new(
            "InstallIntercept",
            CallCode::INSTALL_INTERCEPT,
            &intercept.encode()
        )
        .wrong(8, 4, 8, PARAMETER)
        .wrong(12, 4, 0x55, PARAMETER),
        Case::new(
            "RegisterInterceptResult",
            CallCode::REGISTER_INTERCEPT_RESULT,
            &cpuid.encode()
        )
        .wrong(12, 4, 1, PARAMETER)
        .wrong(24, 1, 2, PARAMETER)
        .wrong(8, 4, 9, HvError::INVALID_VP_INDEX),
        Case::new(
            "GetVpCpuidValues",
            CallCode::GET_VP_CPUID_VALUES,
            &values.encode()
        )
        .vp()
        .list(
            &CpuidLeaf {
                leaf: 1,
                ..CpuidLeaf::default()
            }
            .encode(),
            1
        )
        .out(16)
        .wrong(12, 4, 4, PARAMETER),
    ]
}
