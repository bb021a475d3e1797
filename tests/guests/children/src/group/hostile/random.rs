//! Calls with random input, and with input that changes while it is read.

use machine::clock;
use machine::verdict::{check, note};
use tlfs::register::RegisterName as N;
use tlfs::{CallCode, MessageType};

use super::bystander::Bystander;
use super::{ACCESS_LENGTH, LONG, is_fast};
use crate::child::code::{self, STOP};
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Random, Shared};
use crate::client::vp::{PATIENCE, get_registers, set_registers};
use crate::group::{destroy, need};

/// Argument 1 calls with random codes, control words, addresses and blocks.
pub extern "sysv64" fn random_calls(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let mut random = Random(shared.arg(0));
    let (mut good, mut faults) = (0, 0);
    for _ in 0..shared.arg(1) {
        for n in 0..24 {
            let word = match random.below(5) {
                0 => 0,
                1 => u64::MAX,
                2 => random.below(64),
                3 => layout::PAGES + random.below(16) * 4096,
                _ => random.next(),
            };
            runtime::write(layout::CALL_INPUT + n * 8, word);
        }
        let code = match random.below(4) {
            0 => random.below(0x140),
            1 => {
                [2, 3, 8, 0xB, 0x13, 0x14, 0x15, 0x5C, 0x5D, 0x99, 0x9A][random.below(11) as usize]
            }
            2 => 0x8000 | random.below(8),
            _ => random.below(0x1_0000),
        };
        let mut control = code;
        if random.below(3) == 0 {
            control |= random.below(2) << 16 | random.below(20) << 17;
        }
        if random.below(2) == 0 {
            control |= random.below(600) << 32 | random.below(4) << 48;
        }
        if random.below(16) == 0 {
            control |= random.next() & 0xFFFF_FFFF_FFFF_0000;
        }
        let place = |random: &mut Random, usual: u64| match random.below(12) {
            0 => random.next(),
            1 => usual + random.below(4096),
            2 => 0x30_0000 + random.below(16) * 8,
            3 => !0xFFF_u64,
            _ => usual,
        };
        let input = place(&mut random, layout::CALL_INPUT);
        let output = place(&mut random, layout::CALL_OUTPUT);
        let result = runtime::call(control, input, output);
        good += u64::from(result & 0xFFFF == 0);
        faults += u64::from(result == runtime::FAULTED);
    }
    shared.set(0, good);
    shared.set(1, faults);
    runtime::stop(0)
}

/// Two VPs work together until VP 0 is through.
pub fn pairs(
    bystander: &Bystander,
    name: &str,
    first: runtime::Entry,
    second: runtime::Entry,
    args: &[u64],
) {
    let Some(mut guest) = need(format_args!("{name}: a child of two VPs"), Guest::new(2)) else {
        return;
    };
    let before = bystander.rounds();
    guest.load_at(0x1_2000, code::out_16);
    // An interrupt in real mode leads to the same place; without it the program would be what lies at address 0.
    for at in (0..0x400).step_by(8) {
        guest.write(at, 0x1200_0000_1200_0000);
    }
    for (vp, entry) in [(1, second), (0, first)] {
        need(
            format_args!("{name}: VP {vp}"),
            guest.start_entry(vp, entry, args),
        );
        need(
            format_args!("{name}: awake"),
            guest.set_one(vp, N::INTERNAL_ACTIVITY_STATE, 0),
        );
        need(format_args!("{name}: go"), guest.resume(vp));
    }
    let mut ended = false;
    let mut seen = 0;
    let start = clock::reference();
    while let Some(at) = guest.any_stop(if is_fast() { 15 } else { 2 } * PATIENCE) {
        let vp = at.header().vp.get();
        if vp == 0 && at.is_out(STOP) {
            ended = true;
            break;
        }
        seen += 1;
        let is_lost = vp == 0 && at.kind == MessageType::UNRECOVERABLE_EXCEPTION;
        if is_lost || seen > 200_000 || clock::reference() - start > LONG * 10 {
            note(format_args!("{name}: given up: {at}"));
            break;
        }
        // VP 1 stays where it stopped; VP 0 is passed over what it did.
        if vp == 0 {
            let rip = at.header().rip
                + if at.port().is_some() {
                    at.length()
                } else {
                    ACCESS_LENGTH
                };
            let list = [(N::RIP, rip.into()), (N::RAX, u128::from(u64::MAX))];
            let _ = set_registers(guest.id, 0, &list);
            let _ = guest.resume(0);
        }
    }
    if !ended {
        for vp in 0..2 {
            let _ = guest.suspend(vp);
            let names = [
                N::RIP,
                N::RFLAGS,
                N::CR0,
                N::INTERCEPT_SUSPEND,
                N::INTERNAL_ACTIVITY_STATE,
            ];
            let state = get_registers(guest.id, vp, &names);
            let rounds = guest.shared(vp).result(1);
            note(format_args!(
                "{name}: VP {vp} is at {state:x?}, {rounds} rounds"
            ));
        }
    }
    check(format_args!("{name}: VP 0 comes to its end"), ended);
    note(format_args!(
        "{name}: {seen} intercepts, result {:x?}",
        [0, 1].map(|n| guest.shared(0).result(n))
    ));
    bystander.check(name, before);
    for vp in 0..2 {
        let _ = guest.suspend(vp);
    }
    destroy(name, guest);
}

/// Calls whose input another VP changes all the time.
pub extern "sysv64" fn changing_calls(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let mut good = 0;
    let codes = [
        u64::from(CallCode::POST_MESSAGE.0),
        u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI.0),
        u64::from(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0) | 4 << 17,
        u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0) | 4 << 17,
        u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST.0) | 16 << 32,
        u64::from(CallCode::START_VIRTUAL_PROCESSOR.0),
    ];
    for n in 0..shared.arg(1) {
        let control = codes[n as usize % codes.len()];
        good += u64::from(runtime::call(control, layout::CALL_INPUT, 0) & 0xFFFF == 0);
    }
    shared.set(0, good);
    runtime::stop(0)
}

/// Changes the input of the other VP's calls without end.
pub extern "sysv64" fn flip_input(shared: &'static Shared) -> ! {
    let mut random = Random(shared.arg(0));
    loop {
        let at = layout::CALL_INPUT + random.below(40) * 8;
        let value = match random.below(4) {
            0 => 0,
            1 => random.below(64),
            2 => 1 << random.below(64),
            _ => random.next(),
        };
        runtime::write(at, value);
    }
}
