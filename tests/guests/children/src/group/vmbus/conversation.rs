//! What any client may say to its server, whatever is offered.

use core::fmt::Display;

use machine::verdict::{check, equal, note};
use tlfs::HvError;
use vmbus_proto::{GpadlHandle, MessageType, Relid, Version, status};

use vmbus_client::{Client, Wire};

/// No channel has it.
const NOBODY: Relid = Relid(77);
/// Far more than a queue holds.
const MANY: u64 = 4096;

/// Makes contact with `version`, which is supported.
pub fn connect<W: Wire>(client: &mut Client<W>, name: &str, version: Version) -> bool {
    let said = client.contact(version);
    let is_yes = said.is_some_and(|said| said.payload[8] == 1 && said.len >= 16);
    let word = said.map_or(u64::MAX, |said| said.word(1));
    let expected = if version < Version::V5_0 {
        version.0
    } else {
        4
    };
    check(
        format_args!("{name}: version {:x} is spoken", version.0),
        is_yes && word == expected.into(),
    )
}

/// Versions, from what does not exist to the newest, each on a connection anew.
pub fn versions<W: Wire>(client: &mut Client<W>, name: &str) {
    for unknown in [0x6_0000, 0x5_0004, 0x3_0000, 0, u32::MAX] {
        let said = client.contact(Version(unknown));
        check(
            format_args!("{name}: version {unknown:x} is refused"),
            said.is_some_and(|said| said.payload[8] == 0 && said.len >= 16),
        );
        equal(
            format_args!("{name}: without a connection a post counts"),
            client.send(MessageType::REQUEST_OFFERS, &[]),
            0,
        );
        check(
            format_args!("{name}: and has no answer"),
            client.is_silent(),
        );
    }
    for version in [
        Version::V4_0,
        Version::V4_1,
        Version::V5_0,
        Version::V5_1,
        Version::V5_2,
        Version::V5_3,
    ] {
        connect(client, name, version);
    }
}

fn answered(name: impl Display, status: Option<u64>, wanted: u32) {
    equal(name, status.unwrap_or(u64::MAX), wanted.into());
}

/// Questions about channels that there are not: each that a client waits for is answered.
pub fn strangers<W: Wire>(client: &mut Client<W>, name: &str) {
    let handle = GpadlHandle(0x99);
    let opened = client.open(NOBODY, handle, 1, 0);
    answered(
        format_args!("{name}: open nothing"),
        opened,
        status::FAILURE,
    );
    let created = client.gpadl(NOBODY, handle, &[1]);
    answered(
        format_args!("{name}: pages of nothing"),
        created,
        status::FAILURE,
    );
    let modified = client.modify(NOBODY, 0);
    answered(
        format_args!("{name}: move nothing"),
        modified,
        status::FAILURE,
    );
    equal(
        format_args!("{name}: tear down nothing"),
        client.tear_down(NOBODY, handle),
        0,
    );
    check(
        format_args!("{name}: which is done"),
        client.is_torn_down(handle),
    );
    equal(
        format_args!("{name}: close nothing"),
        client.close(NOBODY),
        0,
    );
    equal(
        format_args!("{name}: release nothing"),
        client.release(NOBODY),
        0,
    );
    check(
        format_args!("{name}: neither is answered"),
        client.is_silent(),
    );
    equal(
        format_args!("{name}: ask for a socket"),
        client.ask_for_socket(5),
        0,
    );
    let said = client.expect(MessageType::TL_CONNECT_RESULT);
    let refusal = said.map_or(0, |said| said.word(8));
    equal(
        format_args!("{name}: nobody listens"),
        refusal,
        status::CONNECTION_REFUSED.into(),
    );
    let nowhere = u32::from(vmbus_client::SINT) << 12 | NOBODY.0;
    equal(
        format_args!("{name}: signal nothing"),
        client.wire.signal(nowhere, 0),
        HvError::INVALID_CONNECTION_ID.0.into(),
    );
}

/// Messages that are none.
pub fn garbage<W: Wire>(client: &mut Client<W>, name: &str) {
    let connection = client.connection;
    equal(
        format_args!("{name}: not of VMBus"),
        client.wire.post(connection, 2, &[3; 8]),
        HvError::INVALID_PARAMETER.0.into(),
    );
    for (what, payload) in [
        ("empty", &[][..]),
        ("short", &[5, 0, 0, 0]),
        ("no type", &[0; 240]),
        ("a type of the server's", &[1; 240]),
        ("unknown", &[99, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]),
        (
            "an opening that is short",
            &[5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        ),
    ] {
        equal(
            format_args!("{name}: {what} counts as posted"),
            client.wire.post(connection, 1, payload),
            0,
        );
    }
    // A contact that names what cannot be answered leaves the connection as it is.
    for target in [0_u64, 16, 2 | 1 << 8] {
        let body = vmbus_proto::InitiateContact {
            version: Version::V5_3,
            target,
            ..Default::default()
        };
        let sent = client.send(MessageType::INITIATE_CONTACT, &body.encode());
        equal(format_args!("{name}: contact by {target:#x}"), sent, 0);
    }
    check(
        format_args!("{name}: garbage has no answer"),
        client.is_silent(),
    );
}

/// A client that does not listen: its queue has an end, keeps order, and does not keep it from starting anew.
pub fn full_queue<W: Wire>(client: &mut Client<W>, name: &str) {
    const FULL: u64 = HvError::INSUFFICIENT_BUFFERS.0 as u64;
    for ending in ["listens at last", "starts anew"] {
        let mut posted = 0;
        let mut status = 0;
        while status == 0 && posted < MANY {
            status = client.ask_for_socket(posted);
            posted += u64::from(status == 0);
        }
        equal(format_args!("{name}: the queue is full"), status, FULL);
        check(
            format_args!("{name}: it held enough # {posted}"),
            (256..MANY).contains(&posted),
        );
        if ending == "starts anew" {
            break;
        }
        let mut next = 0;
        while let Some(said) = client.expect(MessageType::TL_CONNECT_RESULT) {
            next += u64::from(said.word(0) == next);
        }
        equal(format_args!("{name}: all come in order"), next, posted);
        note(format_args!("{name}: {posted} answers were queued"));
    }
    connect(client, name, Version::V5_3);
    check(
        format_args!("{name}: what was queued is gone"),
        client.is_silent(),
    );
}

/// The end and what follows.
pub fn unload<W: Wire>(client: &mut Client<W>, name: &str) {
    check(
        format_args!("{name}: unloading is answered"),
        client.unload(),
    );
    equal(
        format_args!("{name}: once more"),
        client.send(MessageType::UNLOAD, &[]),
        0,
    );
    client.send(MessageType::REQUEST_OFFERS, &[]);
    check(
        format_args!("{name}: then there is no connection"),
        client.is_silent(),
    );
}
