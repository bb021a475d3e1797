//! Behaviour of the registers.
