//! The hypervisor: the kernel image that the loader places and launches.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`arch`] | instructions, descriptor tables, the physical APIC, VT-x and AMD-V |
//! | [`mm`] | frames, page tables, the physical map |
//! | [`partition`] | what the VPs of a partition share |
//! | [`vp`] | one VP and the loop that runs it |
//! | [`scheduler`] | which VP an LP runs |
//! | [`entry`] | the loader's calls |
//! | [`virt`] | what VT-x and AMD-V must offer |
//! | [`console`], [`diagnostics`], [`panic`], [`power`], [`shootdown`] | as their names say |
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod diagnostics;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod mm;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod partition;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod scheduler;
#[cfg(target_os = "none")]
mod shootdown;
#[cfg(target_os = "none")]
mod virt;
#[cfg(target_os = "none")]
mod vp;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the hypervisor runs on no operating system; build it with `cargo xtask build`");
}
