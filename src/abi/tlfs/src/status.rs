//! Hypercall statuses (TLFS, "Hypercall Status Codes").

/// Why a hypercall failed: any `HV_STATUS` but success.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct HvError(pub u16);

/// The status of a call that succeeded (`HV_STATUS_SUCCESS`).
pub const SUCCESS: u16 = 0;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl HvError {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The constant's name, or `None` for a number without one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// No call has this code.
    INVALID_HYPERCALL_CODE = 0x02;
    /// The control word breaks a rule, or the calling form is not one that the call has.
    INVALID_HYPERCALL_INPUT = 0x03;
    /// An address is not aligned, or a parameter block crosses a page.
    INVALID_ALIGNMENT = 0x04;
    /// A parameter has a value it must not have.
    INVALID_PARAMETER = 0x05;
    /// The caller lacks the privilege.
    ACCESS_DENIED = 0x06;
    /// The partition's state does not allow the call.
    INVALID_PARTITION_STATE = 0x07;
    /// The object's state does not allow the call.
    OPERATION_DENIED = 0x08;
    /// No property has this code.
    UNKNOWN_PROPERTY = 0x09;
    /// The property cannot have this value.
    PROPERTY_VALUE_OUT_OF_RANGE = 0x0A;
    /// The pool of the partition that pays is empty: deposit and call again.
    INSUFFICIENT_MEMORY = 0x0B;
    /// No such partition, or none that the caller may name.
    INVALID_PARTITION_ID = 0x0D;
    /// The partition has no such VP.
    INVALID_VP_INDEX = 0x0E;
    /// Nothing was found.
    NOT_FOUND = 0x10;
    /// No such port.
    INVALID_PORT_ID = 0x11;
    /// No such connection.
    INVALID_CONNECTION_ID = 0x12;
    /// The queue is full: try again.
    INSUFFICIENT_BUFFERS = 0x13;
    /// An interrupt is not acknowledged yet.
    NOT_ACKNOWLEDGED = 0x14;
    /// The VP's state does not allow the call.
    INVALID_VP_STATE = 0x15;
    /// The SynIC's state does not allow the call.
    INVALID_SYNIC_STATE = 0x18;
    /// The object is in use.
    OBJECT_IN_USE = 0x19;
    /// There is no more of what was asked for.
    NO_RESOURCES = 0x1D;
    /// The processor lacks a feature.
    PROCESSOR_FEATURE_NOT_SUPPORTED = 0x20;
    /// No such LP.
    INVALID_LP_INDEX = 0x41;
    /// The register cannot have this value.
    INVALID_REGISTER_VALUE = 0x50;
    /// The operation failed.
    OPERATION_FAILED = 0x71;
    /// As [`HvError::INSUFFICIENT_MEMORY`], charged to the root.
    INSUFFICIENT_ROOT_MEMORY = 0x73;
    /// As [`HvError::INSUFFICIENT_MEMORY`], and the pages must be contiguous.
    INSUFFICIENT_CONTIGUOUS_MEMORY = 0x75;
    /// The call took too long and was given up.
    TIMEOUT = 0x78;
    /// A message will tell the result.
    CALL_PENDING = 0x79;
    /// As [`HvError::INSUFFICIENT_CONTIGUOUS_MEMORY`], charged to the root.
    INSUFFICIENT_CONTIGUOUS_ROOT_MEMORY = 0x83;
    /// The virtual trust level is on already.
    VTL_ALREADY_ENABLED = 0x86;
    /// No register has this name.
    UNKNOWN_REGISTER_NAME = 0x87;
}

impl core::fmt::Debug for HvError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "HvError({:#x})", self.0),
        }
    }
}

const _: () = assert!(core::mem::size_of::<HvError>() == 2);
