//! Remote flushes of address translations.

use machine::insn;
use machine::verdict::equal;
use tlfs::call::*;
use tlfs::{CallCode, Control};

use super::interrupts::{patience, together};
use super::start::DONE;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::child::runtime::{self, Shared};
use crate::group::{destroy, need};

/// A page whose translation VP 0 changes, 2 MiB aligned so that one directory entry is it.
const WINDOW: u64 = 0x4000_0000;

extern "sysv64" fn watch_window(shared: &'static Shared) -> ! {
    let mut rounds = 0;
    loop {
        let value = runtime::read(WINDOW + layout::DATA);
        shared.set(1, value);
        rounds += 1;
        shared.set(2, rounds);
        shared.set(0, DONE);
    }
}

extern "sysv64" fn move_window(shared: &'static Shared) -> ! {
    runtime::enable_calls();
    let entry = layout::DIRECTORIES + (WINDOW >> 21) * 8;
    let watcher = layout::SHARED + 0x1000 + core::mem::offset_of!(Shared, out) as u64;
    let calls: [(CallCode, &[u64], u64); 4] = [
        (CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE, &[0, 3, 0], 0),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST,
            &[layout::PML4, 0, 2, WINDOW + layout::DATA],
            1 << 32,
        ),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
            &[layout::PML4, 0, 0, 1, 2],
            1 << 17,
        ),
        (
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX,
            &[0, 2, 1, 0, WINDOW + layout::DATA],
            1 << 32,
        ),
    ];
    let mut good = 0;
    for round in 0..40_u64 {
        let (code, words, extra) = calls[(round % 4) as usize];
        // To the second half or back.
        let to = if round % 2 == 0 { 0x20_0000 } else { 0 };
        runtime::write(entry, to | 0x83);
        for (n, word) in words.iter().enumerate() {
            runtime::write(layout::CALL_INPUT + n as u64 * 8, *word);
        }
        let reply = runtime::call_page(Control::simple(code).0 | extra, layout::CALL_INPUT, 0);
        if reply & 0xFFFF != 0 {
            shared.set(1, reply | round << 48);
            break;
        }
        let rounds = runtime::read(watcher + 16);
        runtime::spin_until(shared.arg(0), || runtime::read(watcher + 16) > rounds + 1);
        let seen = runtime::read(watcher + 8);
        if seen != 0xA0 + u64::from(to != 0) {
            shared.set(2, seen | round << 48 | 1 << 63);
            break;
        }
        good += 1;
    }
    shared.set(0, good);
    runtime::stop(0)
}

/// Translations are gone on the other VPs when a flush returns.
pub fn flushes() {
    let Some(mut guest) = need("flushes: a child of two VPs", Guest::new(2)) else {
        return;
    };
    // The second 2 MiB differ from the first in one word.
    let second = crate::arena::chunk();
    insn::write_phys64(second + layout::DATA, 0xA1);
    guest.write(layout::DATA, 0xA0);
    need(
        "flushes: more memory",
        guest.map(
            0x20_0000,
            &[second],
            crate::client::partition::RWX | MapFlags::LARGE,
        ),
    );
    guest.write(layout::DIRECTORIES + (WINDOW >> 21) * 8, 0x83);
    if together(
        "flushes",
        &mut guest,
        move_window,
        watch_window,
        &[patience()],
    ) {
        let shared = guest.shared(0);
        equal("flushes: no call failed", shared.result(1), 0);
        equal(
            "flushes: the other VP saw no old translation",
            shared.result(2),
            0,
        );
        equal("flushes: forty changes", shared.result(0), 40);
    }
    destroy("flushes", guest);
    crate::arena::free_chunk(second);
}
