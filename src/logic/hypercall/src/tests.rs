//! Behaviour of the dispatcher, call by call.
