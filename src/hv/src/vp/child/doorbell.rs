//! Writes that ring at a port in place of being the parent's to answer.

use addr::Gpa;
use gpa_space::Fault;
use insn::{Progress, Width};
use paging::walk::Access;
use vpcore::seam::SlatFault;

use super::{Child, ChildCore};
use crate::partition::Partition;
use crate::vp::mmio::{Device, Emulated};

impl ChildCore {
    /// Whether the access is a write that rings; then it is completed.
    pub(super) fn rings_doorbell(&mut self, fault: &SlatFault) -> bool {
        let has_connections = || {
            let connections = self.partition.core().links.connections();
            connections.is_ok_and(|connections| !connections.is_empty())
        };
        // Not the processor's own writes: to tables, or to a stack while it delivers an event. And memory goes first.
        let is_candidate = fault.is_write
            && !fault.is_table_walk
            && self.interrupted.is_none()
            && has_connections()
            && self.partition.check_gpa(fault.gpa, Access::Write) == Err(Fault::Unmapped);
        let mut bell = Doorbell::default();
        if is_candidate {
            // Where the instruction cannot be read, or is another one, nothing rings.
            let _: Emulated = self.emulate(fault.gpa, &mut bell);
        }
        bell.has_rung
    }
}

/// Takes one write, if that is all that the instruction does.
#[derive(Default)]
struct Doorbell {
    write: Option<(Gpa, Width, u64)>,
    has_read: bool,
    has_rung: bool,
}

impl Device<Child> for &mut Doorbell {
    fn read(&mut self, _: &mut ChildCore, _: Gpa, _: Width) -> u64 {
        self.has_read = true;
        0
    }

    fn write(&mut self, _: &mut ChildCore, gpa: Gpa, width: Width, value: u64) {
        self.write = Some((gpa, width, value));
    }

    fn accepts(&mut self, vp: &mut ChildCore, progress: Progress) -> bool {
        let Some((gpa, width, value)) = self.write.filter(|_| !self.has_read) else {
            return false;
        };
        if progress != Progress::Done {
            return false;
        }
        let to = vp.partition.core().links.connections();
        let to = to.ok().and_then(|connections| {
            connections.doorbell(gpa, width.bytes(), value, &mut vp.partition.chunks())
        });
        self.has_rung = to.is_some_and(|to| vp.sender().ring(to));
        self.has_rung
    }
}
