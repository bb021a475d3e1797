//! Every call: a success, and each way in which it can be wrong.

mod case;
mod cases;
mod forms;
mod images;
mod moving;
mod privileges;

use machine::platform::Platform;
use tlfs::{CallCode, HvError};

use super::{need, stopped};
use crate::arena;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::partition::{Child, USUAL};
use crate::options::Options;
use cases::cases;
use forms::forms;
use privileges::privileges;

/// A partition that there is not.
const NOBODY: u64 = 0x00DE_AD00;

/// Runs the group.
pub fn run(options: &Options, platform: &Platform) {
    forms();
    let Some(mut guest) = need("calls: a child", Guest::new(1)) else {
        return;
    };
    need(
        "calls: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("calls: a VP that stopped", guest.run(0));
    let frames = arena::frames(8);
    for case in cases(&guest, &frames) {
        case.try_all(&mut guest);
    }
    images::images(&mut guest, options.seed);
    privileges(&mut guest);
    let id = guest.id;
    let list = cases(&guest, &frames);
    super::destroy("calls", guest);
    // The same blocks, with a partition that is gone.
    for case in list.iter().filter(|case| case.names_child) {
        let result = case.make(&case.header).status;
        super::refused(
            format_args!("{}: of partition {:#x}, which is gone", case.name, id.get()),
            result,
            HvError::INVALID_PARTITION_ID,
        );
    }
    moving::moving(platform);
    created();
    finalized();
    frames.iter().for_each(|frame| arena::free(*frame));
}

/// What a partition answers that is not initialized.
fn created() {
    let Some(mut guest) = need("created: a model", Guest::new(1)) else {
        return;
    };
    let id = guest.id;
    let Some(child) = need("created: a child", Child::create(USUAL)) else {
        return;
    };
    let frames = arena::frames(8);
    // The same blocks, about a partition in another state.
    guest.id = child.id;
    for case in cases(&guest, &frames) {
        let is_open = matches!(
            case.code,
            CallCode::GET_PARTITION_PROPERTY
                | CallCode::SET_PARTITION_PROPERTY
                | CallCode::INSTALL_INTERCEPT
                | CallCode::INITIALIZE_PARTITION
                | CallCode::DELETE_PARTITION
        );
        if !case.names_child || is_open {
            continue;
        }
        let reply = case.make(&case.header);
        super::fails(format_args!("created: {}", case.name), reply.status);
    }
    guest.id = id;
    frames.iter().for_each(|frame| arena::free(*frame));
    super::clean("created", child.destroy());
    super::destroy("created: the model", guest);
}

/// What a finalized partition still answers.
fn finalized() {
    let Some(mut guest) = need("finalized: a child", Guest::new(1)) else {
        return;
    };
    need(
        "finalized: finalize",
        call::fast(CallCode::FINALIZE_PARTITION, guest.id.get(), 0),
    );
    let frames = arena::frames(8);
    for case in cases(&guest, &frames) {
        let is_open = matches!(
            case.code,
            CallCode::GET_PARTITION_PROPERTY
                | CallCode::SET_PARTITION_PROPERTY
                | CallCode::UNMAP_GPA_PAGES
                | CallCode::WITHDRAW_MEMORY
                | CallCode::CLEAR_VIRTUAL_INTERRUPT
                | CallCode::DISCONNECT_PORT
        );
        if !case.names_child || is_open {
            continue;
        }
        let reply = case.make(&case.header);
        super::fails(format_args!("finalized: {}", case.name), reply.status);
    }
    frames.iter().for_each(|frame| arena::free(*frame));
    guest.is_initialized = false;
    super::destroy("finalized", guest);
}
