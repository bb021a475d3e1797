//! Memory of the hypervisor: the physical map, its frames, its own address space, the parent's SLAT.
pub mod address_space;
pub mod frames;
pub mod owners;
pub mod phys;
pub mod pool;
pub mod tables;
