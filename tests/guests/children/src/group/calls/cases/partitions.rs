//! Calls about partitions, their properties and their pools.

use alloc::vec::Vec;

use tlfs::call::*;
use tlfs::property::PropertyCode;
use tlfs::{CallCode, HvError};

use super::PARAMETER;
use crate::child::guest::Guest;
use crate::client::partition::{USUAL, create_input};
use crate::group::calls::NOBODY;
use crate::group::calls::case::{Case, words};

/// The cases.
pub fn cases(guest: &Guest) -> Vec<Case> {
    let id = guest.id;
    let weight = PropertyCode::CPU_WEIGHT;
    let property = GetProperty {
        partition: id,
        code: weight,
        ..GetProperty::default()
    };
    let set = SetProperty {
        partition: id,
        code: weight,
        value: 100,
        ..SetProperty::default()
    };
    let ex = GetPropertyEx {
        partition: PARTITION_SELF,
        code: PropertyCode::VMM_CAPABILITIES,
        ..GetPropertyEx::default()
    };
    let next = GetNextChild {
        parent: PARTITION_SELF,
        previous: PARTITION_NONE,
    };
    let only = PartitionOnly { partition: id };
    let withdraw = Withdraw {
        partition: id,
        ..Withdraw::default()
    };
    alloc::vec![
        Case::new(
            "CreatePartition",
            CallCode::CREATE_PARTITION,
            &create_input(USUAL).encode()
        )
        .own()
        .unmade()
        .wrong(0, 8, USUAL.difference(CreateFlags::EXO).bits(), PARAMETER)
        .wrong(0, 8, USUAL.difference(CreateFlags::LAPIC).bits(), PARAMETER)
        .wrong(0, 8, USUAL.union(CreateFlags::NESTED).bits(), PARAMETER)
        .wrong(0, 8, USUAL.bits() | 1 << 62, PARAMETER)
        .wrong(0x14, 4, 1, PARAMETER)
        .bad(0x30, 8, 1),
        Case::new(
            "InitializePartition",
            CallCode::INITIALIZE_PARTITION,
            &only.encode()
        )
        .unmade()
        .wrong(0, 8, id.get(), HvError::INVALID_PARTITION_STATE),
        Case::new(
            "DeletePartition",
            CallCode::DELETE_PARTITION,
            &only.encode()
        )
        .unmade()
        .wrong(0, 8, id.get(), HvError::INVALID_PARTITION_STATE),
        Case::new(
            "GetPartitionProperty",
            CallCode::GET_PARTITION_PROPERTY,
            &property.encode()
        )
        .wrong(8, 4, 0x7777, HvError::UNKNOWN_PROPERTY)
        .wrong(12, 4, 1, PARAMETER),
        Case::new(
            "SetPartitionProperty",
            CallCode::SET_PARTITION_PROPERTY,
            &set.encode()
        )
        .wrong(8, 4, 0x7777, HvError::UNKNOWN_PROPERTY)
        .wrong(12, 4, 1, PARAMETER)
        .wrong(16, 8, u64::MAX, HvError::PROPERTY_VALUE_OUT_OF_RANGE)
        .wrong(16, 8, 0, HvError::PROPERTY_VALUE_OUT_OF_RANGE),
        Case::new(
            "GetPartitionPropertyEx",
            CallCode::GET_PARTITION_PROPERTY_EX,
            &ex.encode()
        )
        .own()
        .bad(8, 4, 0x7777)
        .wrong(0, 8, NOBODY, HvError::INVALID_PARTITION_ID),
        Case::new(
            "GetNextChildPartition",
            CallCode::GET_NEXT_CHILD_PARTITION,
            &next.encode()
        )
        .own()
        .bad(0, 8, NOBODY),
        Case::new("DepositMemory", CallCode::DEPOSIT_MEMORY, &only.encode())
            .list(&words(&[u64::MAX >> 12]), 1)
            .unmade(),
        Case::new(
            "WithdrawMemory",
            CallCode::WITHDRAW_MEMORY,
            &withdraw.encode()
        )
        .list(&[], 1)
        .out(8)
        .unmade(),
    ]
}
