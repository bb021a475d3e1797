//! One call, and what can be wrong with it.

use alloc::vec::Vec;

use machine::verdict::check;
use tlfs::{CallCode, Control, HvError};

use super::NOBODY;
use crate::arena::FRAME;
use crate::child::guest::Guest;
use crate::client::call::{self, Reply};
use crate::group::need;

/// One call with a good block and what makes it bad.
pub struct Case {
    /// The call.
    pub name: &'static str,
    /// Its code.
    pub code: CallCode,
    /// The good block.
    pub header: Vec<u8>,
    variable: usize,
    list: Vec<u8>,
    count: u16,
    out: usize,
    /// Offset, bytes and value of a field, and the status it gives; none for any error.
    bad: Vec<(usize, usize, u64, Option<HvError>)>,
    /// The first field is the child.
    pub names_child: bool,
    /// The second is its VP.
    names_vp: bool,
    /// Whether the good call is made.
    is_made: bool,
}

impl Case {
    /// A simple call with `header` about a child, which is made.
    pub fn new(name: &'static str, code: CallCode, header: &[u8]) -> Self {
        Self {
            name,
            code,
            header: header.to_vec(),
            variable: 0,
            list: Vec::new(),
            count: 0,
            out: 0,
            bad: Vec::new(),
            names_child: true,
            names_vp: false,
            is_made: true,
        }
    }

    /// It names a VP behind the child.
    pub fn vp(self) -> Self {
        Self {
            names_vp: true,
            ..self
        }
    }

    /// It names no child.
    pub fn own(self) -> Self {
        Self {
            names_child: false,
            ..self
        }
    }

    /// Bytes of output for each element.
    pub fn out(self, out: usize) -> Self {
        Self { out, ..self }
    }

    /// A rep call of `count` elements.
    pub fn list(self, list: &[u8], count: u16) -> Self {
        Self {
            list: list.to_vec(),
            count,
            ..self
        }
    }

    /// `pages` as the variable header.
    pub fn header_pages(mut self, pages: &[u64]) -> Self {
        for page in pages {
            self.header.extend_from_slice(&(page / FRAME).to_le_bytes());
            self.variable += 1;
        }
        self
    }

    /// A value of the field at `at` that gives some error.
    pub fn bad(mut self, at: usize, bytes: usize, value: u64) -> Self {
        self.bad.push((at, bytes, value, None));
        self
    }

    /// A value of the field at `at` that gives `status`.
    pub fn wrong(mut self, at: usize, bytes: usize, value: u64, status: HvError) -> Self {
        self.bad.push((at, bytes, value, Some(status)));
        self
    }

    /// Makes the call with `header`.
    pub fn make(&self, header: &[u8]) -> Reply {
        let mut out = alloc::vec![0; self.out * usize::from(self.count)];
        if self.count != 0 {
            return call::rep(self.code, header, &self.list, self.count, &mut out);
        }
        call::put(&[header]);
        let control = Control::simple(self.code).0 | (self.variable as u64) << 17;
        let (input, output) = (call::input_page().address(), call::output_page().address());
        let word = call::raw(control, input, output);
        Reply {
            status: match word as u16 {
                0 => Ok(()),
                code => Err(HvError(code)),
            },
            done: 0,
        }
    }

    /// Makes the call with each bad value, then the good one.
    pub fn try_all(&self, guest: &mut Guest) {
        let with = |at: usize, bytes: usize, value: u64| {
            let mut header = self.header.clone();
            header[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            self.make(&header)
        };
        let report = |what: core::fmt::Arguments<'_>, reply: Reply, wanted: Option<HvError>| {
            let got = reply.code();
            let holds = match wanted {
                Some(status) => got == u64::from(status.0),
                None => got != 0,
            };
            if holds && reply.done == 0 {
                check(format_args!("{}: {what}", self.name), true);
            } else {
                let done = reply.done;
                check(
                    format_args!(
                        "{}: {what} # got {got:#x}, wanted {wanted:?}, {done} done",
                        self.name
                    ),
                    false,
                );
            }
        };
        if self.names_child {
            let id = Some(HvError::INVALID_PARTITION_ID);
            report(
                format_args!("a partition that there is not"),
                with(0, 8, NOBODY),
                id,
            );
            report(format_args!("no partition"), with(0, 8, 0), id);
            report(
                format_args!("the parent itself"),
                with(0, 8, u64::MAX),
                None,
            );
        }
        if self.names_vp {
            let index = Some(HvError::INVALID_VP_INDEX);
            report(format_args!("a VP that there is not"), with(8, 4, 7), index);
            report(
                format_args!("a VP that cannot be"),
                with(8, 4, 0x1234_5678),
                index,
            );
        }
        for (at, bytes, value, status) in &self.bad {
            report(
                format_args!("{value:#x} at {at:#x}"),
                with(*at, *bytes, *value),
                *status,
            );
        }
        if self.is_made {
            let result = guest.feed(|_| self.make(&self.header).status);
            need(format_args!("{}: a success", self.name), result);
        }
    }

    /// The good call is tested elsewhere, or depends on the child.
    pub fn unmade(self) -> Self {
        Self {
            is_made: false,
            ..self
        }
    }
}

/// The bytes of `list`.
pub fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|word| word.to_le_bytes()).collect()
}
