//! The rules of the hypercall interface: who may call, the control word, the calling forms, rep calls, and the
//! leaves by which a partition discovers all this.
//!
//! [`CALLS`] declares every call. [`dispatch`] checks a call against its declaration, copies the parameters
//! once, hands them to a [`Handler`] and writes back what it answers. What a call *does* is the handler's, that
//! is the hypervisor's. Follows the TLFS, "Hypercall Interface".
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod body;
mod buffers;
pub mod caller;
pub mod cpuid;
mod dispatch;
pub mod sparse;
pub mod table;

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;

pub use body::{Body, Element};
pub use buffers::dispatch_buffers;
pub use caller::{Mode, Registers, Rip};
pub use cpuid::{PartitionIdentity, hypervisor_leaf};
pub use dispatch::{
    Access, Handler, HypercallMemory, NoAccess, Outcome, Progress, Scratch, dispatch,
};
pub use sparse::{FlushRequest, IpiRequest, VpSet};
pub use table::{CALLS, Call, CallSpec, RepSpec, Shape, Table};
