//! The control channel: sessions, hypercalls in packets, the list.

use alloc::vec::Vec;

use machine::verdict::{check, equal};
use slot_proto::{Call, CallDone, Generation, Hello, MAGIC, MAJOR, PartitionState, Request};
use tlfs::call::{PartitionOnly, Withdraw};
use tlfs::property::PropertyCode;
use tlfs::wire::Zero;
use tlfs::{CallCode, Control, HvError};

use super::World;
use crate::arena::{self, FRAME};
use crate::client::line::{Line, handle};
use crate::client::partition::{USUAL, create_input, deposit_frames, property_of};
use crate::group::{need, refused};

/// Frames of one deposit: more than one stretch of time takes.
const FRAMES: usize = 300;

pub fn run(world: &World) {
    let relid = world.offers[0].relid;
    let pages = arena::frames(34);
    equal(
        "control: a GPADL",
        world
            .bus
            .gpadl(relid, handle(relid), &pages)
            .unwrap_or(9)
            .into(),
        0,
    );
    check(
        "control: the second ring begins in the middle",
        world.bus.open(relid, handle(relid), 16) != Some(0),
    );
    check(
        "control: the GPADL goes",
        world.bus.teardown(relid, handle(relid)),
    );
    pages.into_iter().for_each(arena::free);

    let Some(mut line) = world.control() else {
        return;
    };
    sessions(world, &mut line);
    calls(&mut line);
    check("control: it closes", line.close(&world.bus));
}

fn sessions(world: &World, line: &mut Line) {
    let Some(first) = need("control: HELLO once more", line.hello()) else {
        return;
    };
    check(
        format_args!("control: what HELLO tells # {first:?}"),
        first.minor == 0
            && first.slot == 0
            && first.boot_id != 0
            && first.max_outstanding == 4
            && first.max_packet == 4224,
    );
    check(
        "control: the doorbell rings",
        world.bus.take_event(line.relid),
    );
    let second = need("control: a session after it", line.hello());
    check(
        "control: another number, the same hypervisor",
        second.is_some_and(|second| {
            second.boot_id == first.boot_id && second.generation > first.generation
        }),
    );
    let hello = |magic, major| {
        Request::Hello(Hello {
            magic,
            major,
            minor: 7,
            max_outstanding: 1,
            reserved: Zero,
        })
    };
    let wrong = HvError::INVALID_PARAMETER;
    refused("control: no magic", line.ask(&hello(1, MAJOR)), wrong);
    refused("control: another major", line.ask(&hello(MAGIC, 2)), wrong);
    let request = |slot| {
        Request::Detach(slot_proto::Detach {
            slot,
            generation: Generation(1),
        })
    };
    let free = HvError::INVALID_PARTITION_STATE;
    refused("control: nothing is attached", line.ask(&request(3)), free);
    refused("control: no such slot", line.ask(&request(9999)), wrong);
    let number = |number| {
        Request::SlotAdd(slot_proto::SlotAdd {
            number,
            reserved: Zero,
        })
    };
    need("control: a slot that is there", line.ask(&number(3)));
    refused("control: a slot too far", line.ask(&number(20)), wrong);
}

fn id_of(output: &[u8]) -> u64 {
    output
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn calls(line: &mut Line) {
    let input = create_input(USUAL).encode();
    let created = line.call(CallCode::CREATE_PARTITION, &input, 0);
    let Some((_, output)) = need("control: a partition", created) else {
        return;
    };
    let id = id_of(&output);
    let partition = addr::PartitionId::new(id);
    equal(
        "control: it is one for the parent's own calls",
        property_of(partition, PropertyCode::TIME_FREEZE).unwrap_or(9),
        0,
    );
    let list = line.list().unwrap_or_default();
    check(
        "control: the list has it",
        list.iter()
            .any(|entry| entry.partition == partition && entry.state == PartitionState::CREATED),
    );

    let header = PartitionOnly { partition }.encode();
    let frames = arena::frames(FRAMES);
    let mut input: Vec<u8> = header.to_vec();
    for frame in &frames {
        input.extend_from_slice(&(frame / FRAME).to_le_bytes());
    }
    let given = line.call(CallCode::DEPOSIT_MEMORY, &input, FRAMES as u16);
    equal(
        "control: a long list is worked off",
        given.map_or(0, |(done, _)| done).into(),
        FRAMES as u64,
    );
    refused(
        "control: a list that is too short",
        line.call(CallCode::DEPOSIT_MEMORY, &input, FRAMES as u16 + 1),
        HvError::INVALID_HYPERCALL_INPUT,
    );
    let again = line.call(CallCode::DEPOSIT_MEMORY, &input, 1);
    refused("control: a frame twice", again, HvError::OPERATION_DENIED);
    let ring = deposit_frames(partition, &line.pages[3..4]);
    equal(
        "control: no page of an open ring",
        ring.code(),
        HvError::OPERATION_DENIED.0.into(),
    );

    let fast = Control(Control::simple(CallCode::INITIALIZE_PARTITION).0 | Control::FAST);
    refused(
        "control: no fast call",
        line.ask(&Request::Call(Call {
            control: fast,
            input: &header,
        })),
        HvError::INVALID_HYPERCALL_INPUT,
    );
    refused(
        "control: no such call",
        line.call(CallCode(0x77), &header, 0),
        HvError::INVALID_HYPERCALL_CODE,
    );
    let one = line.call(CallCode::INITIALIZE_PARTITION, &header, 0);
    need("control: it is initialized", one);
    let one = line.call(CallCode::FINALIZE_PARTITION, &header, 0);
    need("control: it is finalized", one);
    let withdraw = Withdraw {
        partition,
        ..Withdraw::default()
    };
    let mut back = Vec::new();
    while back.len() < FRAMES {
        let taken = line.call(CallCode::WITHDRAW_MEMORY, &withdraw.encode(), 100);
        match taken {
            Ok((done, output)) if done != 0 => {
                check(
                    "control: as many pages as elements",
                    output.len() == usize::from(done) * 8,
                );
                back.extend(output.chunks_exact(8).map(|page| id_of(page) * FRAME));
            }
            _ => break,
        }
    }
    back.sort_unstable();
    let mut given = frames;
    given.sort_unstable();
    check(
        "control: all frames come back",
        back == given || back.is_empty(),
    );
    if back.is_empty() {
        check("control: frames come back in whole lists", false);
    }
    given.into_iter().for_each(arena::free);
    need(
        "control: it is deleted",
        line.call(CallCode::DELETE_PARTITION, &header, 0),
    );
    const { assert!(CallDone::BYTES == 8) };
}
