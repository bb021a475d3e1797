//! HvCallAssertVirtualInterrupt: interrupts that the parent's device models send to a child's APICs.

use addr::ApicId;
use apic::{Destination, Inbox, Ipi, IpiKind, Trigger};
use tlfs::HvError;
use tlfs::call::{AssertInterrupt, InterruptFlags, InterruptType};

/// An interrupt to assert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asserted {
    ipi: Ipi,
    trigger: Trigger,
    vector: u8,
}

impl Asserted {
    /// Reads the parameters of the call.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: a kind that no child takes (SMI, local pins), a destination beyond 32 bits, or a
    /// vector that the kind cannot have.
    pub fn new(call: &AssertInterrupt) -> Result<Self, HvError> {
        const REFUSED: HvError = HvError::INVALID_PARAMETER;
        let address = u32::try_from(call.destination).map_err(|_| REFUSED)?;
        let vector = u8::try_from(call.vector).map_err(|_| REFUSED)?;
        let kind = match call.kind {
            InterruptType::Fixed if vector >= 16 => IpiKind::Fixed(vector),
            InterruptType::LowestPriority if vector >= 16 => IpiKind::LowestPriority(vector),
            InterruptType::Nmi => IpiKind::Nmi,
            InterruptType::Init => IpiKind::Init,
            InterruptType::Sipi => IpiKind::Sipi(vector),
            InterruptType::ExtInt => IpiKind::ExtInt,
            _ => return Err(REFUSED),
        };
        let is_logical = call.flags.contains(InterruptFlags::LOGICAL);
        let is_level = call.flags.contains(InterruptFlags::LEVEL);
        Ok(Self {
            ipi: Ipi {
                kind,
                destination: if is_logical {
                    Destination::Logical(address)
                } else {
                    Destination::Physical(address)
                },
                sender: ApicId::new(u32::MAX),
                // MSIs and I/O APICs address 8 bits, of which all ones are everybody.
                x2apic: address > 0xFF,
            },
            trigger: if is_level {
                Trigger::Level
            } else {
                Trigger::Edge
            },
            vector,
        })
    }

    /// Leaves the interrupt at every inbox of the partition that it is for, or at one of them for lowest priority, one
    /// that accepts interrupts if there is. Calls `woken` with the place in `inboxes` of each whose VP must look.
    pub fn deliver<'a>(
        &self,
        inboxes: impl Iterator<Item = &'a Inbox> + Clone,
        mut woken: impl FnMut(usize),
    ) {
        let mut targets = (inboxes.enumerate()).filter(|(_, inbox)| inbox.matches(&self.ipi));
        if let IpiKind::LowestPriority(_) = self.ipi.kind {
            let accepting = targets.clone().find(|(_, inbox)| inbox.is_accepting());
            let target = accepting.or_else(|| targets.next());
            if let Some((index, _)) = target.filter(|(_, inbox)| self.post(inbox)) {
                woken(index);
            }
            return;
        }
        for (index, inbox) in targets {
            if self.post(inbox) {
                woken(index);
            }
        }
    }

    fn post(&self, inbox: &Inbox) -> bool {
        match (self.ipi.kind, self.trigger) {
            (IpiKind::Fixed(vector) | IpiKind::LowestPriority(vector), Trigger::Edge) => {
                inbox.post(vector)
            }
            (IpiKind::Fixed(vector) | IpiKind::LowestPriority(vector), Trigger::Level) => {
                inbox.post_level(vector)
            }
            (IpiKind::Nmi, _) => inbox.post_nmi(),
            (IpiKind::Init, _) => inbox.post_init(),
            (IpiKind::Sipi(vector), _) => inbox.post_sipi(vector),
            (IpiKind::ExtInt, _) => {
                inbox.post_extint(self.vector);
                true
            }
            (IpiKind::InitDeassert | IpiKind::Smi, _) => false,
        }
    }
}
