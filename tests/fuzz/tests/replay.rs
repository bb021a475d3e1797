//! What was found once, and what leads far into a target, without a fuzzer: `corpus/TARGET` holds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
    entries.map(|entry| name(entry).unwrap()).collect()
}

#[test]
fn every_input_of_the_corpus_is_borne() {
    let corpus = folder("corpus");
    let mut folders = names(&corpus);
    for (target, run) in TARGETS {
        if folders.remove(*target) {
            for name in names(&corpus.join(target)) {
                println!("{target}/{name}");
                run(&fs::read(corpus.join(target).join(name)).unwrap());
            }
        }
    }
    assert!(folders.is_empty(), "no targets: {folders:?}");
}

#[test]
fn every_target_takes_nothing_and_little() {
    for (target, run) in TARGETS {
        println!("{target}");
        run(&[]);
        run(&[0xFF; 64]);
    }
}

#[test]
fn every_target_has_a_program_of_its_name() {
    let targets = TARGETS.iter().map(|(name, _)| format!("{name}.rs"));
    assert_eq!(names(&folder("libfuzzer/src/bin")), targets.collect());
}
