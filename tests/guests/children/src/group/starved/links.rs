//! Ports and connections of a child, for which its pool pays.

use addr::Gpa;
use machine::verdict::{check, note};
use tlfs::HvError;
use tlfs::call::*;

use super::{NONE, fed, starve};
use crate::child::guest::Guest;
use crate::client::port;
use crate::group::{need, refused};

const PORT: u32 = 0x77;
/// Doorbells and more than lie in one frame.
const BELLS: u32 = 0x400;
/// Where they are, sixteen bytes each.
const AWAY: u64 = 0x41_0000;

/// Runs this part of the group.
pub fn run(guest: &mut Guest) {
    let id = guest.id;
    let message = port::message(3);
    fed(
        guest,
        "a port",
        |_| port::create(id, PORT, PARTITION_SELF, message),
        // Deleting what there is not tells.
        |_| port::delete(id, PORT) == Err(HvError::INVALID_PORT_ID),
    );
    refused(
        "starved: a port: it is deleted by now",
        port::delete(id, PORT),
        HvError::INVALID_PORT_ID,
    );
    let made = port::own(|| port::create(PARTITION_SELF, PORT, id, message));
    need("starved: a port of the parent", made);
    let message = ConnectionKind::Message;
    fed(
        guest,
        "a connection",
        |_| port::connect(id, PORT, PARTITION_SELF, PORT, message),
        |_| port::disconnect(id, PORT, false) == Err(HvError::INVALID_CONNECTION_ID),
    );
    need(
        "starved: the parent's port goes",
        port::delete(PARTITION_SELF, PORT),
    );
    doorbells(guest);
}

/// So many that the frames of the connections before are full.
fn doorbells(guest: &mut Guest) {
    let id = guest.id;
    let bell = port::info(PortKind::Doorbell, 5);
    let made = port::own(|| port::create(PARTITION_SELF, PORT, id, bell));
    need("starved: a port for doorbells", made);
    let at = |n: u32| Doorbell {
        gpa: Gpa::new(AWAY + u64::from(n) * 16),
        value: None,
        bytes: Some(4),
    };
    let connect = |number: u32, bell: Doorbell| {
        port::connect(
            id,
            number,
            PARTITION_SELF,
            PORT,
            ConnectionKind::Doorbell(bell),
        )
    };
    let disconnect = |number: u32| port::disconnect(id, number, true);
    starve(guest);
    let mut end = 1;
    while end < BELLS && connect(end, at(end)).is_ok() {
        end += 1;
    }
    refused(
        "starved: doorbells fill their frame",
        connect(end, at(end)),
        NONE,
    );
    fed(
        guest,
        "a doorbell",
        |_| connect(end, at(end)),
        |_| disconnect(end) == Err(HvError::INVALID_CONNECTION_ID),
    );
    // Neither the refused ones nor the one that went kept the place of the write.
    need("starved: a doorbell there", connect(end + 1, at(end)));
    refused(
        "starved: a second one there",
        connect(end, at(end)),
        HvError::INVALID_PARAMETER,
    );
    need("starved: it goes", disconnect(end + 1));
    let gone = (1..end).filter(|n| disconnect(*n).is_ok()).count();
    check("starved: the doorbells go", gone as u32 == end - 1);
    note(format_args!("{gone} doorbells without more memory"));
    need(
        "starved: their port goes",
        port::delete(PARTITION_SELF, PORT),
    );
}
