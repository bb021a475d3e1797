//! Classes of channels: the GUID of an offer by which a guest picks a driver.

use crate::Guid;

const fn guid(text: &str) -> Guid {
    match Guid::parse(text) {
        Some(guid) => guid,
        None => panic!("not a GUID"),
    }
}

macro_rules! guids {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Guid = guid($text);)*
    };
}

guids! {
    /// SCSI controller (`hv_storvsc`).
    SCSI = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";
    /// Network adapter (`hv_netvsc`).
    NETWORK = "f8615163-df3e-46c5-913f-f2d2f965ed0e";
    /// Synthetic video (`hyperv_drm`).
    VIDEO = "da0a7802-e377-4aac-8e77-0558eb1073f8";
    /// Keyboard (`hyperv_keyboard`).
    KEYBOARD = "f912ad6d-2b17-48ea-bd65-f927a61c7684";
    /// Mouse (`hid_hyperv`).
    MOUSE = "cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a";
    /// Shutdown (`hv_utils`).
    SHUTDOWN = "0e0b6031-5213-4934-818b-38d90ced39db";
    /// Time synchronisation (`hv_utils`).
    TIME_SYNC = "9527e630-d0ae-497b-adce-e80ab0175caf";
    /// Heartbeat (`hv_utils`).
    HEARTBEAT = "57164f39-9115-4e78-ab55-382f3bd5422d";
    /// Key-value pairs (`hv_utils`).
    KEY_VALUE = "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6";
    /// Snapshot (`hv_utils`, VSS).
    SNAPSHOT = "35fa2e29-ea23-4236-96ae-3a6ebacba440";
    /// File copy (`uio_hv_generic`).
    FILE_COPY = "34d14be3-dee4-41c8-9ae7-6b174977c192";
    /// Dynamic memory (`hv_balloon`).
    DYNAMIC_MEMORY = "525074dc-8985-46e2-8057-a307dc18a502";

    /// Ours, unknown to Linux: the parent's control channel. Of this class there is one instance, [`CONTROL_INSTANCE`].
    CONTROL = "46b35a9c-0f5d-4281-b4c7-a64e1cafc700";
    /// Ours: a slot of the parent's. Instance of slot n: [`slot_instance`].
    SLOT = "cb416a70-ca03-4ae0-8061-7722c2d8bee4";
    /// The control channel.
    CONTROL_INSTANCE = "2ff0cc44-cafd-4e0e-a243-d829acc38074";
    /// Slot 0.
    SLOT_0_INSTANCE = "3c3a1342-fcf2-4e56-b8a0-1d981a120000";
}

/// The instance of slot `number`, always the same.
pub const fn slot_instance(number: u32) -> Guid {
    Guid::numbered(SLOT_0_INSTANCE, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_instances_of_their_own() {
        assert_eq!(slot_instance(0), SLOT_0_INSTANCE);
        assert_eq!(slot_instance(258).0[14..], [1, 2]);
        assert_eq!(slot_instance(258).0[..14], SLOT_0_INSTANCE.0[..14]);
    }
}
