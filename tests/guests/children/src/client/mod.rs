//! The calls that a parent makes, for programs without an operating system.

pub mod bus;
pub mod call;
pub mod intercept;
pub mod line;
pub mod partition;
pub mod port;
pub mod synic;
pub mod vp;
