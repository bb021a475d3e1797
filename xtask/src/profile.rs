//! `cargo xtask profile`: where the instructions of one measurement go, as Bochs' debugger traces them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use runner::files::RunFiles;
use runner::machine::{Machine, Model};
use runner::session::{self, Limits};

use crate::boot_disk::{self, Guest};
use crate::build;
use crate::disk_image;
use crate::guest;
use crate::setup::debian::Flavour;
use crate::setup::emulators;
use crate::symbolize::{IMAGE, Image};
use crate::workspace::Workspace;

const TIMEOUT: Duration = Duration::from_secs(900);

/// Share in percent from which on an inlined function is shown.
const WORTH_A_LINE: f64 = 0.5;

/// The measurement that is Debian's boot.
const BOOT: &str = "boot";

/// What `cargo xtask profile` can be told.
#[derive(Args)]
pub struct Options {
    /// The measurement, by its name in `cargo xtask bench`: one of the groups exits and children; or `boot`, Debian's
    /// in the parent
    name: String,
    /// `bochs-vmx` or `bochs-svm`
    #[arg(long, value_name = "MACHINE", default_value = "bochs-vmx")]
    machine: Model,
    /// Instructions to trace, from the beginning of the measurement on; its end ends the trace as well
    #[arg(long, default_value_t = 400_000)]
    instructions: u64,
    /// Instructions since the machine's reset from which on `boot` is traced; the kernel's first line comes before
    /// two billion, its first process before three
    #[arg(long, default_value_t = 2_000_000_000)]
    after: u64,
    /// Functions to show
    #[arg(long, default_value_t = 50)]
    top: usize,
}

/// Runs the measurement with a trace, and prints the functions by their share.
pub fn run(options: &Options) -> Result<()> {
    let model = options.machine;
    ensure!(
        model.is_bochs(),
        "{model} has no tracing debugger; profile on bochs-vmx or bochs-svm"
    );
    let workspace = Workspace::find()?;
    let emulators = emulators::obtain()?;
    let images = build::build(&workspace, &build::Options::default())?;
    let guest = guest_of(&options.name, &workspace)?;
    let configuration = boot_disk::configuration(&guest, boot_disk::HYPERVISOR_SECTION);
    let entries = boot_disk::with_hypervisor(&images, &guest, &configuration)?;
    let directory = workspace.target().join(format!("profile/{model}"));
    let files = RunFiles::prepare(&directory)?;
    let disk = files.directory().join("disk.img");
    disk_image::write(&disk, &entries)?;
    let mut machine = Machine::new(model, disk);
    let mut to_the_beginning = vec!["c".to_owned()];
    if options.name == BOOT {
        to_the_beginning.insert(0, format!("sba {}", options.after));
    }
    machine.debugger = to_the_beginning;
    machine.debugger.extend([
        "trace on".to_owned(),
        format!("s {}", options.instructions),
        "q".to_owned(),
    ]);
    println!("{model}: {}, traced ...", options.name);
    let limits = Limits {
        timeout: TIMEOUT,
        stop_lines: vec!["# verdict".to_owned(), "panicked at".to_owned()],
        grace: session::GRACE,
    };
    session::run(&emulators, &machine, &files, &limits)?;
    let trace = directory.join("emulator-output.txt");
    let addresses = count(BufReader::new(
        File::open(&trace).with_context(|| format!("reading {}", trace.display()))?,
    ))?;
    if addresses.is_empty() {
        bail!(
            "nothing was traced: is there a measurement `{}` on this machine?",
            options.name
        );
    }
    print!(
        "{}",
        Profile::of(&addresses, &Image::open(&images.hypervisor)?)?.text(options.top)
    );
    Ok(())
}

/// What runs for the measurement of this name; programs stop the trace's debugger themselves where it begins.
fn guest_of(name: &str, workspace: &Workspace) -> Result<Guest> {
    if name == BOOT {
        let extras = guest::Extras::default();
        return guest::debian(workspace, Flavour::Cloud, extras, "vg.test=bench quiet");
    }
    let is_childs = name.starts_with("child") || name == "get-register";
    let image = if is_childs {
        build::children(workspace)?
    } else {
        build::test_parent(workspace)?
    };
    Ok(Guest::Program {
        image,
        command_line: format!("bench mark={name}"),
    })
}

/// How often each address was executed, from lines of the form `(0).[TICKS] [...] SELECTOR:ADDRESS ...`.
fn count(trace: impl BufRead) -> Result<BTreeMap<u64, u64>> {
    let mut counts = BTreeMap::new();
    for line in trace.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(address) = address(&line) {
            *counts.entry(address).or_default() += 1;
        }
    }
    Ok(counts)
}

fn address(line: &str) -> Option<u64> {
    let rest = line.strip_prefix('(')?;
    let place = rest.split_whitespace().find_map(|word| {
        let (selector, offset) = word.split_once(':')?;
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (selector.len() == 4 && is_hex(selector) && is_hex(offset)).then_some(offset)
    })?;
    u64::from_str_radix(place, 16).ok()
}

/// Instructions by function.
#[derive(Debug, Default)]
struct Profile {
    total: u64,
    guest: u64,
    /// By the function that holds the code.
    functions: BTreeMap<String, Function>,
}

/// What a function took, with what was inlined into it.
#[derive(Debug, Default)]
struct Function {
    total: u64,
    inlined: BTreeMap<String, u64>,
}

impl Profile {
    fn of(addresses: &BTreeMap<u64, u64>, image: &Image) -> Result<Self> {
        let mut profile = Self::default();
        for (&address, &count) in addresses {
            profile.total += count;
            if !IMAGE.contains(&address) {
                profile.guest += count;
                continue;
            }
            let (inner, holder) = image.functions(address)?;
            let inner = without_generics(&inner);
            let holder = without_generics(&holder);
            let is_inlined = inner != holder;
            let function = profile.functions.entry(holder).or_default();
            function.total += count;
            if is_inlined {
                *function.inlined.entry(inner).or_default() += count;
            }
        }
        Ok(profile)
    }

    fn text(&self, top: usize) -> String {
        let share = |count: u64| 100.0 * count as f64 / self.total.max(1) as f64;
        let mut rows: Vec<_> = self.functions.iter().collect();
        rows.sort_by_key(|(_, function)| std::cmp::Reverse(function.total));
        let mut text = format!(
            "{} instructions, {:.1} % of them outside the hypervisor\n",
            self.total,
            share(self.guest)
        );
        for (name, function) in rows.into_iter().take(top) {
            let count = function.total;
            text += &format!("{count:9} {:5.1} %  {name}\n", share(count));
            let mut inlined: Vec<_> = function.inlined.iter().collect();
            inlined.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (name, &count) in inlined {
                if share(count) < WORTH_A_LINE {
                    break;
                }
                text += &format!("{count:27} {:5.1} %  {name}\n", share(count));
            }
        }
        text
    }
}

/// A name with each list of generic arguments left out.
fn without_generics(name: &str) -> String {
    let mut depth = 0_usize;
    name.chars()
        .filter(|&letter| {
            depth += usize::from(letter == '<');
            let is_shown = depth == 0;
            depth -= usize::from(letter == '>' && depth > 0);
            is_shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traced_line_has_its_address() {
        let line = "(0).[5691484110] [0x00007a812345] 0008:ffffffff80012345 (unk. ctxt): mov rax, rbx ; 4889d8";
        assert_eq!(address(line), Some(0xffff_ffff_8001_2345));
        assert_eq!(address("<bochs:2> trace on"), None);
        assert_eq!(address("(0) Magic breakpoint"), None);
        assert_eq!(address("00005691484110i[SYS   ] 1234:zz"), None);
    }

    #[test]
    fn generic_arguments_are_left_out_of_names() {
        assert_eq!(without_generics("get<a::B<C>, D>"), "get");
        assert_eq!(without_generics("try_fold<(), {impl#8}>::x"), "try_fold::x");
        assert_eq!(without_generics("a > b"), "a > b");
    }

    #[test]
    fn instructions_are_counted_by_address() {
        let trace = "(0).[1] [0x1] 0008:0000000000001000 (x): nop\n\
            (0).[2] [0x1] 0008:0000000000001000 (x): nop\nother\n\
            (1).[2] [0x1] 0010:0000000000002000 (x): nop\n";
        let counts = count(trace.as_bytes()).unwrap();
        assert_eq!(counts, BTreeMap::from([(0x1000, 2), (0x2000, 1)]));
    }
}
