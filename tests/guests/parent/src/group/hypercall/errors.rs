//! Each way in which a call can be wrong, and the status it gets.

use super::call::{FAST, make};
use super::page::Page;
use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal, note};

const POST_MESSAGE: u64 = 0x5C;
const SIGNAL_EVENT: u64 = 0x5D;
const GET_PARTITION_ID: u64 = 0x46;
const QUERY_CAPABILITIES: u64 = 0x8001;

const INVALID_CODE: u64 = 0x02;
const INVALID_INPUT: u64 = 0x03;
const INVALID_ALIGNMENT: u64 = 0x04;
const INVALID_PARAMETER: u64 = 0x05;
const ACCESS_DENIED: u64 = 0x06;
const INVALID_CONNECTION: u64 = 0x12;

/// A connection that nobody has.
const NOBODY: u64 = 0x7F_FFFF;

const GP_FAULT: u64 = super::call::FAULTED | 13;

static INPUT: Page = Page::new();
static OUTPUT: Page = Page::new();

/// Reserved and misplaced fields of the control word.
pub fn control_word(page: u64) {
    message(NOBODY, 1, 0);
    let input = INPUT.address();
    for bit in [27, 30, 44, 47, 60, 63] {
        let result = make(page, POST_MESSAGE | (1 << bit), input, 0);
        equal(
            format_args!("hypercall: reserved bit {bit} of the control word"),
            result,
            INVALID_INPUT,
        );
    }
    // Neither status is wrong: a nested call is an unknown call where nothing is nested.
    let nested = make(page, POST_MESSAGE | (1 << 31), input, 0);
    check(
        "hypercall: the nested bit is refused",
        matches!(nested, INVALID_INPUT | INVALID_CODE | ACCESS_DENIED),
    );
    equal(
        "hypercall: rep count on a simple call",
        make(page, POST_MESSAGE | (1 << 32), input, 0),
        INVALID_INPUT,
    );
    equal(
        "hypercall: rep start on a simple call",
        make(page, POST_MESSAGE | (1 << 48), input, 0),
        INVALID_INPUT,
    );
    equal(
        "hypercall: variable header on a fixed call",
        make(page, POST_MESSAGE | (1 << 17), input, 0),
        INVALID_INPUT,
    );
    equal(
        "hypercall: a long input in the fast form",
        make(page, POST_MESSAGE | FAST, 0, 0),
        INVALID_INPUT,
    );
    for code in [0, 0x7, 0x0FFF, 0x4000, 0x7FFF, 0xFFFF] {
        equal(
            format_args!("hypercall: unknown code {code:#x}"),
            make(page, code, input, 0),
            INVALID_CODE,
        );
        equal(
            format_args!("hypercall: unknown code {code:#x}, fast"),
            make(page, code | FAST, 0, 0),
            INVALID_CODE,
        );
    }
}

/// Where the input may lie.
pub fn addresses(page: u64, platform: &Platform) {
    message(NOBODY, 1, 0);
    let input = INPUT.address();
    for offset in [1, 4, 7] {
        let result = make(page, POST_MESSAGE, input + offset, 0);
        equal(
            format_args!("hypercall: input at offset {offset}"),
            result,
            INVALID_ALIGNMENT,
        );
    }
    let result = make(page, POST_MESSAGE, input + 4096 - 248, 0);
    equal("hypercall: input across a page", result, INVALID_ALIGNMENT);
    INPUT.set(4096 - 8, NOBODY);
    let result = make(page, SIGNAL_EVENT, input + 4096 - 8, 0);
    equal(
        "hypercall: input that ends with its page",
        result,
        INVALID_CONNECTION,
    );
    for address in [
        1 << 46,
        1 << 51,
        (1 << 52) - 4096,
        0xFFFF_FFFF_FFFF_F000,
        0xFEE0_0000,
        0xFEC0_0000,
    ] {
        refused(
            format_args!("hypercall: input at {address:#x}"),
            make(page, POST_MESSAGE, address, 0),
        );
    }
    for range in platform
        .reserved()
        .iter()
        .filter(|range| range.start % (2 << 20) == 0)
    {
        let address = range.start + range.len / 2;
        refused(
            format_args!("hypercall: input in reserved memory at {address:#x}"),
            make(page, POST_MESSAGE, address, 0),
        );
    }
}

/// What each call says to a caller that may not, or names nobody.
pub fn calls(page: u64) {
    let (input, output) = (INPUT.address(), OUTPUT.address());
    OUTPUT.fill(0xEE);
    equal(
        "GetPartitionId: denied",
        make(page, GET_PARTITION_ID, 0, output),
        ACCESS_DENIED,
    );
    check(
        "GetPartitionId: writes nothing",
        OUTPUT.is_filled_with(0xEE),
    );

    let extended = insn::cpuid(0x4000_0003, 0).ebx & (1 << 20) != 0;
    let result = make(page, QUERY_CAPABILITIES, 0, output);
    if extended {
        equal("ExtCallQueryCapabilities: answers", result, 0);
        equal(
            "ExtCallQueryCapabilities: offers nothing",
            OUTPUT.word(0),
            0,
        );
        check(
            "ExtCallQueryCapabilities: writes eight bytes",
            OUTPUT.word(8) == 0xEE,
        );
        equal(
            "ExtCallQueryCapabilities: unaligned",
            make(page, QUERY_CAPABILITIES, 0, output + 4),
            INVALID_ALIGNMENT,
        );
    } else {
        check(
            "ExtCallQueryCapabilities: refused without the privilege",
            matches!(result, INVALID_CODE | ACCESS_DENIED),
        );
        check(
            "ExtCallQueryCapabilities: writes nothing",
            OUTPUT.is_filled_with(0xEE),
        );
    }

    message(NOBODY, 1, 16);
    equal(
        "PostMessage: connection of nobody",
        make(page, POST_MESSAGE, input, 0),
        INVALID_CONNECTION,
    );
    message(NOBODY, 1, 241);
    let result = make(page, POST_MESSAGE, input, 0);
    check(
        "PostMessage: 241 bytes refused",
        matches!(result, INVALID_PARAMETER | INVALID_CONNECTION),
    );
    note(format_args!("PostMessage of 241 bytes: {result:#x}"));
    message(NOBODY, 1, u64::from(u32::MAX));
    refused(
        format_args!("PostMessage: 4 GiB refused"),
        make(page, POST_MESSAGE, input, 0),
    );

    for connection in [NOBODY, 0, 0xFFFF_FFFF] {
        let result = make(page, SIGNAL_EVENT | FAST, connection, 0);
        equal(
            format_args!("SignalEvent, fast: connection {connection:#x}"),
            result,
            INVALID_CONNECTION,
        );
        INPUT.set(0, connection);
        let result = make(page, SIGNAL_EVENT, input, 0);
        equal(
            format_args!("SignalEvent, slow: connection {connection:#x}"),
            result,
            INVALID_CONNECTION,
        );
    }
    let flag = make(page, SIGNAL_EVENT | FAST, NOBODY | (0xFFFF << 32), 0);
    check(
        "SignalEvent: flag 0xFFFF refused",
        matches!(flag, INVALID_PARAMETER | INVALID_CONNECTION),
    );

    // Host-side calls, which the parent cannot use yet or must not use with these inputs.
    for code in [0x40_u64, 0x41, 0x48, 0x4B, 0x4E, 0x50, 0x51, 0x69] {
        INPUT.fill(u64::MAX);
        refused(
            format_args!("hypercall {code:#x} with input of all ones"),
            make(page, code, input, output),
        );
    }
    INPUT.fill(0);
}

fn message(connection: u64, kind: u64, size: u64) {
    INPUT.fill(0);
    INPUT.set(0, connection);
    INPUT.set(8, kind | (size << 32));
}

fn refused(name: impl core::fmt::Display, result: u64) {
    // A block that cannot be accessed is an intercept of the caller's parent; the root has none and gets #GP.
    check(name, matches!(result, 1..=0xFFFF | GP_FAULT));
}
