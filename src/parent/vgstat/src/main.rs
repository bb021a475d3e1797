//! `vgstat`: the hypervisor's counters and log, read in the parent partition without an exit.
//!
//! `docs/diagnostics.md` describes the area that they lie in.

mod area;
mod layout;
mod log;
mod place;
mod table;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};

use area::Area;
use diagnostics::Header;

const USAGE: &str = "\
Usage: vgstat [--all] [--json]            counters of every virtual processor of the parent
       vgstat children [--all] [--json]   counters of every virtual processor of the children that there are
       vgstat memory [--json]             what the hypervisor uses memory for, and how much
       vgstat log                         the hypervisor's log, as far as its ring holds it

  --all    with counters that are 0 everywhere
  --json   one object for each virtual processor; memory in bytes
Run it as root in the parent partition.
";

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Table { whose: Whose, all: bool },
    Json(Whose),
    Memory { is_json: bool },
    Log,
    Help,
}

/// Whose counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Parent,
    Children,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(request) = parse(&words) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vgstat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<Request> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["log"] => Some(Request::Log),
        ["memory"] => Some(Request::Memory { is_json: false }),
        ["memory", "--json"] => Some(Request::Memory { is_json: true }),
        ["--help" | "-h" | "help"] => Some(Request::Help),
        ["children", ref options @ ..] => counters_of(Whose::Children, options),
        ref options => counters_of(Whose::Parent, options),
    }
}

fn counters_of(whose: Whose, options: &[&str]) -> Option<Request> {
    match *options {
        [] => Some(Request::Table { whose, all: false }),
        ["--all"] => Some(Request::Table { whose, all: true }),
        ["--json"] | ["--all", "--json"] | ["--json", "--all"] => Some(Request::Json(whose)),
        _ => None,
    }
}

fn run(request: Request) -> Result<()> {
    let text = match request {
        Request::Help => USAGE.into(),
        Request::Table { whose, all } => table::text(&counters(whose)?, all).into_bytes(),
        Request::Json(whose) => table::json(&counters(whose)?).into_bytes(),
        Request::Memory { is_json } => {
            let (header, bytes) = area()?;
            let uses = layout::memory(&header, &bytes)?;
            let text = if is_json {
                table::memory_json(&uses)
            } else {
                table::memory(&uses)
            };
            text.into_bytes()
        }
        Request::Log => log()?,
    };
    match std::io::stdout().lock().write_all(&text) {
        // `vgstat log | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// The header of the area, and all that lies before its log.
fn area() -> Result<(Header, Vec<u8>)> {
    let area = Area::open(&place::find()?)?;
    let header = layout::header(&area.read(0, layout::HEADER_LEN)?, area.len())?;
    let bytes = area.read(0, header.log_offset as usize)?;
    Ok((header, bytes))
}

fn counters(whose: Whose) -> Result<layout::Counters> {
    let (header, bytes) = area()?;
    match whose {
        Whose::Parent => layout::parent(&header, &bytes),
        Whose::Children => layout::children(&header, &bytes),
    }
}

fn log() -> Result<Vec<u8>> {
    let area = Area::open(&place::find()?)?;
    let header = layout::header(&area.read(0, layout::HEADER_LEN)?, area.len())?;
    let ring = area.read(header.log_offset as usize, header.log_len as usize)?;
    // The hypervisor goes on writing while the ring is copied.
    let after = layout::header(&area.read(0, layout::HEADER_LEN)?, area.len())?;
    if (after.log_offset, after.log_len) != (header.log_offset, header.log_len) {
        bail!("the area changed while it was read");
    }
    Ok(log::lines(&ring, header.log_written, after.log_written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<Request> {
        parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn words_are_requests() {
        let whose = Whose::Parent;
        assert_eq!(of(&[]), Some(Request::Table { whose, all: false }));
        assert_eq!(of(&["--json"]), Some(Request::Json(whose)));
        let whose = Whose::Children;
        assert_eq!(
            of(&["children", "--all"]),
            Some(Request::Table { whose, all: true })
        );
        assert_eq!(of(&["children", "--json"]), Some(Request::Json(whose)));
        assert_eq!(of(&["--json", "children"]), None);
        assert_eq!(of(&["log"]), Some(Request::Log));
        assert_eq!(of(&["memory"]), Some(Request::Memory { is_json: false }));
        assert_eq!(
            of(&["memory", "--json"]),
            Some(Request::Memory { is_json: true })
        );
        assert_eq!(of(&["memory", "--all"]), None);
        assert_eq!(of(&["log", "--json"]), None);
        assert_eq!(of(&["logs"]), None);
    }
}
