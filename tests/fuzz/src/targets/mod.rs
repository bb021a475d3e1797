//! The targets by their names.

/// Makes each a module and puts it into the list.
macro_rules! targets {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// Name and function of each.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run)),*];
    };
}

targets! {
    disk
    gpa_space
    hypercall
    platform_load
    platform_mmio
    platform_ports
    ports
    ring
    scsi
    slot_proto
    slots
    storvsp
    synic_timers
    vmbus
    vmbus_proto
    vmms_proto
}
