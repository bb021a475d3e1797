//! What runs inside a child, and where it lies there.

pub mod code;
pub mod guest;
pub mod image;
pub mod layout;
pub mod runtime;
pub mod vmbus;
