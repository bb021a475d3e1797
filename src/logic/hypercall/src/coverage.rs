//! `docs/tlfs-coverage.md` says what of the TLFS is there. It is made from the tables, so it cannot drift: the test
//! fails when it differs, and writes it anew when `VERDIGRIS_UPDATE_DOCS` is set.

use std::fmt::Write;
use std::string::String;

use synic::Scope;
use tlfs::cpuid::{FIRST_LEAF, HARDWARE_FEATURES};
use tlfs::{SyntheticFeatures, msr};

use crate::{CALLS, PartitionIdentity, hypervisor_leaf};

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../docs/tlfs-coverage.md"
);

fn page() -> Result<String, core::fmt::Error> {
    let mut text = String::from(
        "# What of the TLFS is there\n\n\
         Made from the tables in `src/logic/hypercall` and `src/logic/synic`. To write it anew after a change:\n\
         `VERDIGRIS_UPDATE_DOCS=1 cargo test -p hypercall coverage`.\n\n\
         ## Hypercalls\n\n\
         Every other code answers 0x02, invalid hypercall code.\n\n\
         | code | call | input | output | list element in/out | variable header | fast | privilege |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for spec in CALLS.specs() {
        let shape = spec.shape;
        let list = shape.rep.map_or(String::from("-"), |rep| {
            std::format!("{} / {}", rep.input, rep.output)
        });
        let output = if shape.is_output_open {
            std::format!("up to {}", shape.output)
        } else {
            std::format!("{}", shape.output)
        };
        let privilege: std::vec::Vec<_> =
            spec.privilege.iter_names().map(|(name, _)| name).collect();
        writeln!(
            text,
            "| {:#06X} | {} | {} | {} | {list} | {} | {} | {} |",
            spec.code.0,
            spec.name.replace("HvCallExt", "HvExtCall"),
            shape.input,
            output,
            yes(shape.variable_header),
            yes(shape.fast),
            if privilege.is_empty() {
                String::from("-")
            } else {
                privilege.join(", ")
            },
        )?;
    }
    text.push_str(
        "\nSizes are in bytes. Input in XMM registers is not offered.\n\n\
         ## Synthetic MSRs\n\n\
         The scope says who has the register; \"-\" means that every access raises #GP. A register whose privilege\n\
         or feature the partition was not told of raises #GP as well, but for TIME_REF_COUNT and VP_ASSIST_PAGE,\n\
         which Linux uses without asking.\n\n\
         | number | name | scope |\n|---|---|---|\n",
    );
    for (number, name) in msr::NAMES {
        let scope = match synic::scope(*number) {
            Some(Scope::Partition) => "partition",
            Some(Scope::Vp) => "VP",
            None => "-",
        };
        writeln!(text, "| {number:#010X} | {name} | {scope} |")?;
    }
    text.push_str(
        "\nSINT1 to SINT14, the other timers' registers and CRASH_P1 to CRASH_P3 lie between those listed.\n\n\
         ## CPUID\n\n\
         On a machine with four logical processors, 48 physical address bits and an invariant TSC; the child has two\n\
         VPs and all features that a child can have (property 0x10001 takes some away). All other leaves from\n\
         0x40000000 to 0x4000FFFF are zero.\n",
    );
    let all = SyntheticFeatures::ASSIGNABLE;
    for (whose, identity) in [
        ("parent", PartitionIdentity::parent(4, 48, true)),
        ("child", PartitionIdentity::child(all, 2, 4, 48, true)),
    ] {
        write!(
            text,
            "\n### As the {whose} sees it\n\n\
             | leaf | EAX | EBX | ECX | EDX |\n|---|---|---|---|---|\n"
        )?;
        for leaf in FIRST_LEAF..=HARDWARE_FEATURES {
            let r = hypervisor_leaf(leaf, &identity);
            writeln!(
                text,
                "| {leaf:#010X} | {:#010X} | {:#010X} | {:#010X} | {:#010X} |",
                r.eax, r.ebx, r.ecx, r.edx
            )?;
        }
        let names = |names: &mut dyn Iterator<Item = &'static str>| {
            names.collect::<std::vec::Vec<_>>().join(", ")
        };
        let privileges = identity.privileges;
        writeln!(
            text,
            "\nPrivileges: {}.\n\nHints: {}.",
            names(&mut privileges.iter_names().map(|(name, _)| name)),
            names(&mut identity.hints.iter_names().map(|(name, _)| name))
        )?;
    }
    Ok(text)
}

const fn yes(it_is: bool) -> &'static str {
    if it_is { "yes" } else { "-" }
}

/// Touches the file system, which Miri keeps away from.
#[test]
#[cfg_attr(miri, ignore)]
fn the_coverage_page_is_up_to_date() {
    let made = page().unwrap();
    if std::env::var_os("VERDIGRIS_UPDATE_DOCS").is_some() {
        std::fs::write(PATH, &made).unwrap();
    }
    let found = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        found == made,
        "docs/tlfs-coverage.md is out of date; see its first lines"
    );
}
