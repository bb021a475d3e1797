//! Which hypercalls a slot may make.

use addr::PartitionId;
use slot_proto::Call;
use tlfs::call::{GetProperty, PARTITION_SELF, VpState};
use tlfs::{CallCode, HvError, PropertyCode, Reader};

/// What a slot's calls depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The one partition that the slot's calls may name.
    pub partition: PartitionId,
    /// Its VMBus server is ours, and with it the SINT of the VMBus.
    pub has_vmbus: bool,
    /// It was finalized.
    pub is_finalized: bool,
}

/// Properties that a worker may read.
const READABLE: [PropertyCode; 6] = [
    PropertyCode::SUSPEND,
    PropertyCode::TIME_FREEZE,
    PropertyCode::REFERENCE_TIME,
    PropertyCode::PRIVILEGE_FLAGS,
    PropertyCode::SYNTHETIC_FEATURES,
    PropertyCode::GUEST_OS_ID,
];

/// Properties that a worker may set: what a pause and a restored state need.
const WRITABLE: [PropertyCode; 3] = [
    PropertyCode::SUSPEND,
    PropertyCode::TIME_FREEZE,
    PropertyCode::REFERENCE_TIME,
];

/// Whether a slot with this attachment may make `call`: about its partition only, and nothing that takes a page number
/// of the parent or changes who owns what. Calls not named here are refused.
///
/// # Errors
/// - [`HvError::ACCESS_DENIED`]: not this call, or not this property or state.
/// - [`HvError::INVALID_PARTITION_ID`]: it names another partition.
/// - [`HvError::INVALID_PARTITION_STATE`]: not now.
/// - [`HvError::INVALID_PARAMETER`]: the input is too short.
pub fn check_call(call: &Call<'_>, attachment: &Attachment) -> Result<(), HvError> {
    match call.control.code() {
        CallCode::GET_VP_REGISTERS
        | CallCode::SET_VP_REGISTERS
        | CallCode::TRANSLATE_VIRTUAL_ADDRESS
        | CallCode::READ_GPA
        | CallCode::WRITE_GPA
        | CallCode::CLEAR_VIRTUAL_INTERRUPT
        | CallCode::ASSERT_VIRTUAL_INTERRUPT
        | CallCode::GET_GPA_PAGES_ACCESS_STATES
        | CallCode::SIGNAL_EVENT_DIRECT
        | CallCode::POST_MESSAGE_DIRECT
        | CallCode::INSTALL_INTERCEPT
        | CallCode::REGISTER_INTERCEPT_RESULT
        | CallCode::GET_PARTITION_PROPERTY
        | CallCode::SET_PARTITION_PROPERTY
        | CallCode::GET_VP_STATE
        | CallCode::SET_VP_STATE => {}
        _ => return Err(HvError::ACCESS_DENIED),
    }
    // All of these begin with the partition.
    let partition = PartitionId::new(Reader::new(call.input).u64()?);
    if partition != PARTITION_SELF && partition != attachment.partition {
        return Err(HvError::INVALID_PARTITION_ID);
    }
    let property = || GetProperty::decode(call.input).map(|input| input.code);
    let is_allowed = match call.control.code() {
        CallCode::SIGNAL_EVENT_DIRECT | CallCode::POST_MESSAGE_DIRECT if attachment.has_vmbus => {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        CallCode::INSTALL_INTERCEPT | CallCode::REGISTER_INTERCEPT_RESULT
            if attachment.is_finalized =>
        {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        CallCode::GET_PARTITION_PROPERTY => READABLE.contains(&property()?),
        CallCode::SET_PARTITION_PROPERTY => WRITABLE.contains(&property()?),
        CallCode::GET_VP_STATE | CallCode::SET_VP_STATE => {
            !VpState::decode(call.input)?.kind.is_in_pages()
        }
        _ => true,
    };
    if is_allowed {
        Ok(())
    } else {
        Err(HvError::ACCESS_DENIED)
    }
}
