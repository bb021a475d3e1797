//! An event that an exit interrupted, and the one that its handling wants to deliver: which of them comes.
//!
//! Source: SDM vol. 3A, "Interrupt 8—Double Fault Exception (#DF)".

use x86::vector;

use crate::seam::Event;

/// What to do when `second` arises while `first` was being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combined {
    /// Deliver this one; the other is lost or comes again by itself.
    Deliver(Event),
    /// Three faults in a row: the VP shuts down.
    Shutdown,
}

/// A double fault.
pub const DOUBLE_FAULT: Event = Event::Exception {
    vector: vector::DF,
    error_code: Some(0),
};

fn is_contributory(number: u8) -> bool {
    matches!(
        number,
        vector::DE | vector::TS | vector::NP | vector::SS | vector::GP
    )
}

/// Combines `second`, an exception that the hypervisor is about to inject, with `first`.
pub fn combine(first: Event, second: Event) -> Combined {
    let (Event::Exception { vector: a, .. }, Event::Exception { vector: b, .. }) = (first, second)
    else {
        // Interrupts and NMIs that were being delivered come again only if the exception says so; the architecture
        // keeps the exception.
        return Combined::Deliver(second);
    };
    if a == vector::DF && (is_contributory(b) || b == vector::PF) {
        return Combined::Shutdown;
    }
    let doubles = (is_contributory(a) && is_contributory(b))
        || (a == vector::PF && (is_contributory(b) || b == vector::PF));
    Combined::Deliver(if doubles { DOUBLE_FAULT } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(vector: u8) -> Event {
        Event::Exception {
            vector,
            error_code: None,
        }
    }

    #[test]
    fn two_contributory_faults_make_a_double_fault() {
        assert_eq!(
            combine(exception(vector::NP), exception(vector::GP)),
            Combined::Deliver(DOUBLE_FAULT)
        );
        assert_eq!(
            combine(exception(vector::PF), exception(vector::PF)),
            Combined::Deliver(DOUBLE_FAULT)
        );
        let debug_then_gp = combine(exception(vector::DB), exception(vector::GP));
        assert_eq!(debug_then_gp, Combined::Deliver(exception(vector::GP)));
        let gp_then_pf = combine(exception(vector::GP), exception(vector::PF));
        assert_eq!(gp_then_pf, Combined::Deliver(exception(vector::PF)));
    }

    #[test]
    fn a_fault_in_a_double_fault_shuts_down() {
        assert_eq!(
            combine(DOUBLE_FAULT, exception(vector::GP)),
            Combined::Shutdown
        );
    }
}
