//! A child that misbehaves on its VMBus, each time it starts in another way, and looks whether all is as it was after that.
//!
//! It needs a disk, whose first sector tells how often it started. It uses the disk as a driver does, does its worst,
//! makes contact anew or opens its channel anew, and uses the disk again. At last it resets the machine in the middle of
//! it all, and the next start must find everything as at the first.
//!
//! | start | what |
//! |---|---|
//! | 0 | indices and other fields of the rings ([`rings`]) |
//! | 1 | packets that are none, and noise in the ring ([`packets`]) |
//! | 2 | proper packets with requests that make no sense ([`requests`]) |
//! | 3 | lists of pages and openings ([`gpadls`]) |
//! | 4 | messages: noise of every type ([`messages`]) |
//! | 5 | rings full of noise, and a reset |
//! | 6 | the end |
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod controller;
#[cfg(target_os = "none")]
mod gpadls;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod messages;
#[cfg(target_os = "none")]
mod packets;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod requests;
#[cfg(target_os = "none")]
mod rings;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod wire;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a child's kernel");
}
