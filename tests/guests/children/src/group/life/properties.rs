//! Properties: what they are, and which values they take.

use machine::verdict::{check, equal, note, within};
use tlfs::call::*;
use tlfs::property::{PropertyCode, SyntheticFeatures};
use tlfs::{CallCode, HvError};

use crate::client::call;
use crate::client::partition::{Child, USUAL};
use crate::group::{clean, fails, need, refused};

/// Each property, and the values that it refuses.
pub fn properties() {
    let Some(mut child) = need("properties: create", Child::create(USUAL)) else {
        return;
    };
    let all = SyntheticFeatures::ASSIGNABLE.bits();
    let features = PropertyCode::SYNTHETIC_FEATURES;
    need(
        "properties: features can be set early",
        child.set_property(features, all & !0x200),
    );
    equal(
        "properties: and read back",
        child.property(features).unwrap_or(0),
        all & !0x200,
    );
    need("properties: set back", child.set_property(features, all));
    need("properties: initialize", child.initialize());
    fails(
        "properties: features are fixed later",
        child.set_property(features, 3),
    );
    refused(
        "properties: an unknown one is not read",
        child.property(PropertyCode(0x7777)),
        HvError::UNKNOWN_PROPERTY,
    );
    refused(
        "properties: nor written",
        child.set_property(PropertyCode(0x7777), 0),
        HvError::UNKNOWN_PROPERTY,
    );
    for (name, code) in [
        ("processor features 0", PropertyCode::PROCESSOR_FEATURES_0),
        ("processor features 1", PropertyCode::PROCESSOR_FEATURES_1),
        ("xsave features", PropertyCode::XSAVE_FEATURES),
        ("xsave states", PropertyCode::XSAVE_STATES),
        ("xsave size", PropertyCode::MAX_XSAVE_DATA_SIZE),
        ("reference time", PropertyCode::REFERENCE_TIME),
        ("vendor", PropertyCode::PROCESSOR_VENDOR),
        ("address width", PropertyCode::PHYSICAL_ADDRESS_WIDTH),
        ("weight", PropertyCode::CPU_WEIGHT),
        ("cap", PropertyCode::CPU_CAP),
    ] {
        let value = need(
            format_args!("properties: {name} is read"),
            child.property(code),
        );
        note(format_args!("{name} {:#x}", value.unwrap_or(0)));
    }
    let size = child.property(PropertyCode::MAX_XSAVE_DATA_SIZE);
    within(
        "properties: the xsave area fits in a page",
        size.unwrap_or(0),
        576,
        4096,
    );
    let action = PropertyCode::UNIMPLEMENTED_MSR_ACTION;
    need(
        "properties: unimplemented MSRs can be dropped",
        child.set_property(action, 1),
    );
    refused(
        "properties: 2 is no such action",
        child.set_property(action, 2),
        HvError::PROPERTY_VALUE_OUT_OF_RANGE,
    );
    need(
        "properties: time can be frozen",
        child.set_property(PropertyCode::TIME_FREEZE, 1),
    );
    let first = child.property(PropertyCode::REFERENCE_TIME);
    machine::clock::spin(2000);
    check(
        "properties: a frozen clock stands",
        first.is_ok() && child.property(PropertyCode::REFERENCE_TIME) == first,
    );
    need(
        "properties: and thawed",
        child.set_property(PropertyCode::TIME_FREEZE, 0),
    );
    let ex = |code, id| {
        let input = GetPropertyEx {
            partition: id,
            code,
            ..GetPropertyEx::default()
        };
        call::ask::<16>(CallCode::GET_PARTITION_PROPERTY_EX, &input.encode())
    };
    let capabilities = ex(PropertyCode::VMM_CAPABILITIES, PARTITION_SELF);
    check(
        "properties: capabilities of the VMM have one bank",
        capabilities.is_ok_and(|bytes| bytes[0] == 1 && bytes[8] & 2 != 0),
    );
    let assignable = ex(PropertyCode::ASSIGNABLE_SYNTHETIC_FEATURES, PARTITION_SELF);
    check(
        "properties: what can be assigned",
        assignable.is_ok_and(|bytes| bytes[8..] == all.to_le_bytes()),
    );
    clean("properties", child.destroy());
}
