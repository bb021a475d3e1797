//! `cargo xtask symbolize`: the addresses of a panic record as functions, files and lines.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::build;
use crate::workspace::Workspace;

const FIRST_LINE: &str = "=== verdigris: hypervisor panic";
const LAST_LINE: &str = "=== end of panic record";
/// Where `linker.ld` puts the hypervisor; what lies elsewhere is no address of its code. Linux in a partition begins
/// 16 MiB above the same address, at the lowest.
pub const IMAGE: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_8100_0000;

/// What `cargo xtask symbolize` can be told.
#[derive(Args)]
pub struct Options {
    /// A log that holds the record, `-` for standard input [default: that of the last `run` of qemu-svm]
    file: Option<PathBuf>,
    /// The hypervisor's ELF file, the very one that ran [default: what was last built with these features]
    #[arg(long, value_name = "ELF")]
    image: Option<PathBuf>,
    /// Features that the hypervisor was built with
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

/// Prints each record of a log, and below it what its addresses stand for.
pub fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::find()?;
    let file = match &options.file {
        Some(file) => file.clone(),
        None => workspace.target().join("run/qemu-svm/hypervisor.txt"),
    };
    let log = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        bytes
    } else {
        fs::read(&file).with_context(|| format!("reading {}", file.display()))?
    };
    let image = match &options.image {
        Some(image) => image.clone(),
        None => build::hypervisor_image(&workspace, &options.features),
    };
    let records = Record::all(&String::from_utf8_lossy(&log));
    ensure!(
        !records.is_empty(),
        "{} holds no panic record",
        file.display()
    );
    let image = Image::open(&image)?;
    let root = format!("{}/", workspace.root().display());
    for record in records {
        println!("{}", record.text);
        for frame in image.backtrace(&record)? {
            println!("{}", frame.to_string().replace(&root, ""));
        }
    }
    Ok(())
}

/// Looks the addresses of a log's first record up in `image`. `Err` where that does not lead to the line that the
/// record itself says it panicked at.
pub fn names_the_panic(log: &str, image: &Path) -> Result<()> {
    let records = Record::all(log);
    let record = records.first().context("the log holds no panic record")?;
    let place = record
        .place()
        .context("the record does not say where it panicked")?;
    let frames = Image::open(image)?.backtrace(record)?;
    let found = frames.iter().any(|frame| frame.is_at(place));
    let text: Vec<String> = frames.iter().map(Frame::to_string).collect();
    ensure!(
        found,
        "no address of the record leads to {place}:\n{}",
        text.join("\n")
    );
    Ok(())
}

/// One panic record of a log.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    text: String,
    addresses: Vec<u64>,
    /// Whether the first address is that of the instruction itself, as it is after an exception.
    begins_with_rip: bool,
}

impl Record {
    /// All of a log. One that is cut short ends with the log.
    fn all(log: &str) -> Vec<Self> {
        let mut records = Vec::new();
        let mut lines = log.lines();
        while let Some(first) = lines.find(|line| line.contains(FIRST_LINE)) {
            let mut text = first.trim_end().to_owned();
            for line in lines.by_ref() {
                text.push('\n');
                text.push_str(line.trim_end());
                if line.contains(LAST_LINE) {
                    break;
                }
            }
            records.push(Self::of(text));
        }
        records
    }

    fn of(text: String) -> Self {
        let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let addresses = text
            .lines()
            .find_map(|line| line.strip_prefix("backtrace"))
            .map_or(Vec::new(), |line| {
                line.split_whitespace().filter_map(number).collect()
            });
        let begins_with_rip = text.lines().any(|line| line.starts_with("exception "));
        Self {
            text,
            addresses,
            begins_with_rip,
        }
    }

    /// File and line of `panicked at FILE:LINE:COLUMN:`, as `FILE:LINE`.
    fn place(&self) -> Option<&str> {
        let place = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix("panicked at "))?;
        Some(place.strip_suffix(':')?.rsplit_once(':')?.0)
    }
}

/// One function that an address lies in; an address has several where calls were inlined, innermost first.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    address: u64,
    is_inlined: bool,
    function: String,
    place: Option<String>,
}

impl Frame {
    /// `place` is as the compiler names it in a panic: its path may begin further down than the debugger's.
    fn is_at(&self, place: &str) -> bool {
        self.place.as_deref().is_some_and(|known| {
            known == place
                || known
                    .strip_suffix(place)
                    .is_some_and(|rest| rest.ends_with('/'))
        })
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_inlined {
            write!(f, "{:18}", "  inlined in")?;
        } else {
            write!(f, "{:#018x}", self.address)?;
        }
        write!(f, " {}", self.function)?;
        if let Some(place) = &self.place {
            write!(f, "\n{:18}   at {place}", "")?;
        }
        Ok(())
    }
}

/// The hypervisor's file with its line tables.
pub struct Image(Loader);

impl Image {
    /// Reads the line tables of an ELF file.
    pub fn open(path: &Path) -> Result<Self> {
        let loader = Loader::new(path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("reading the line tables of {}", path.display()))?;
        Ok(Self(loader))
    }

    /// The function that an instruction belongs to, and the one that it was inlined into, if any.
    pub fn functions(&self, address: u64) -> Result<(String, String)> {
        let frames = self.frames(address, address)?;
        let name = |frame: Option<&Frame>| frame.map_or("?", |frame| &frame.function).to_owned();
        Ok((name(frames.first()), name(frames.last())))
    }

    fn backtrace(&self, record: &Record) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for (index, &address) in record.addresses.iter().enumerate() {
            // A return address is that of the instruction behind the call.
            let is_return = index > 0 || !record.begins_with_rip;
            let known = self.frames(address, address - u64::from(is_return && address > 0))?;
            frames.extend(known);
        }
        Ok(frames)
    }

    fn frames(&self, address: u64, probe: u64) -> Result<Vec<Frame>> {
        let unknown = |function: String| Frame {
            address,
            is_inlined: false,
            function,
            place: None,
        };
        // Without debug information of it, a function has its mangled name alone.
        let symbol = || match self.0.find_symbol(probe) {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
            None => "?".to_owned(),
        };
        if !IMAGE.contains(&probe) {
            return Ok(vec![unknown("not in the hypervisor's image".to_owned())]);
        }
        let mut found = self
            .0
            .find_frames(probe)
            .map_err(|error| anyhow!("{error}"))?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next()? {
            let function = match &frame.function {
                Some(name) => name.demangle()?.into_owned(),
                None => symbol(),
            };
            let place = frame.location.and_then(|location| {
                Some(format!("{}:{}", location.file?, location.line.unwrap_or(0)))
            });
            frames.push(Frame {
                address,
                is_inlined: !frames.is_empty(),
                function,
                place,
            });
        }
        if frames.is_empty() {
            frames.push(unknown(symbol()));
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "[    0.1] lp0 INFO  verdigris\r\n\
        \r\n=== verdigris: hypervisor panic on lp1 ===\r\n\
        version 0.1.0\r\n\
        panicked at src/hv/src/vp/exit.rs:81:9:\r\n\
        a panic: of a test\r\n\
        backtrace 0xffffffff80000010 0xffffffff80000020\r\n\
        0 LPs did not stop\r\n\
        === end of panic record ===\r\nsomething else\r\n";

    #[test]
    fn a_record_is_found_in_a_log() {
        let records = Record::all(LOG);
        assert_eq!(records.len(), 1);
        assert_eq!(
            records[0].addresses,
            [0xffff_ffff_8000_0010, 0xffff_ffff_8000_0020]
        );
        assert_eq!(records[0].place(), Some("src/hv/src/vp/exit.rs:81"));
        assert!(!records[0].begins_with_rip);
        assert!(records[0].text.ends_with("=== end of panic record ==="));
    }

    #[test]
    fn a_record_that_is_cut_short_is_a_record() {
        let records = Record::all(
            "=== verdigris: hypervisor panic on lp0 ===\nexception 14 error 0x0\nbacktra",
        );
        assert_eq!(records.len(), 1);
        assert!(records[0].addresses.is_empty());
        assert!(records[0].begins_with_rip);
        assert_eq!(records[0].place(), None);
        assert!(Record::all("nothing of that kind").is_empty());
    }

    #[test]
    fn the_place_is_compared_by_whole_names() {
        let frame = |place: &str| Frame {
            address: 0,
            is_inlined: false,
            function: String::new(),
            place: Some(place.to_owned()),
        };
        assert!(frame("/somewhere/src/hv/src/vp/exit.rs:81").is_at("src/hv/src/vp/exit.rs:81"));
        assert!(!frame("/somewhere/src/hv/src/vp/exit.rs:811").is_at("src/hv/src/vp/exit.rs:81"));
        assert!(!frame("/somewhere/src/hv/src/vp/not_exit.rs:81").is_at("exit.rs:81"));
    }

    #[test]
    fn what_is_not_in_the_image_is_said_to_be_so() {
        let image = Image::open(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            image.frames(1, 1).unwrap()[0].function,
            "not in the hypervisor's image"
        );
        assert!(!image.frames(u64::MAX, u64::MAX).unwrap()[0].is_inlined);
        assert_eq!(
            image.frames(IMAGE.start, IMAGE.start).unwrap()[0].function,
            "?"
        );
        assert!(Image::open(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_log_without_the_place_or_the_record_is_refused() {
        let image = std::env::current_exe().unwrap();
        let error = |log: &str| names_the_panic(log, &image).unwrap_err().to_string();
        assert!(error("").contains("no panic record"));
        assert!(error(&LOG.replace("panicked at", "stopped at")).contains("where it panicked"));
        // The addresses are those of another program, so they lead elsewhere.
        assert!(error(LOG).contains("no address of the record leads to src/hv/src/vp/exit.rs:81"));
    }
}
