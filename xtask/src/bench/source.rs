//! How much source text is privileged: code lines and unsafe blocks of the crates linked into the hypervisor.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::workspace::Workspace;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines with code.
    pub lines: u64,
    /// `unsafe { }`.
    pub unsafe_blocks: u64,
    /// `unsafe fn` and `unsafe impl`.
    pub unsafe_functions: u64,
}

/// The crates that the hypervisor is made of.
#[derive(Clone, Debug, Default)]
pub struct Crates {
    /// Directories of our own, sorted.
    pub own: Vec<PathBuf>,
    /// Names and versions of the others, sorted.
    pub foreign: Vec<String>,
}

/// What cargo links into the hypervisor; crates that only run in the compiler are left out.
pub fn crates(workspace: &Workspace) -> Result<Crates> {
    let output = workspace
        .cargo()
        .args([
            "tree",
            "--package",
            "hypervisor",
            "--edges",
            "normal,no-proc-macro",
        ])
        .args(["--target", "x86_64-unknown-none", "--prefix", "none"])
        .args(["--no-dedupe", "--locked", "--offline"])
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "`cargo tree` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(sort(&text))
}

/// Lines of `cargo tree`: name, version, and in brackets the directory of a crate of ours.
fn sort(tree: &str) -> Crates {
    let (mut own, mut foreign) = (BTreeSet::new(), BTreeSet::new());
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        match line.split_once('(') {
            Some((_, rest)) => {
                own.insert(PathBuf::from(rest.split(')').next().unwrap_or(rest)));
            }
            None => {
                foreign.insert(line.trim().to_owned());
            }
        }
    }
    Crates {
        own: own.into_iter().collect(),
        foreign: foreign.into_iter().collect(),
    }
}

/// Counts the sources below `directory/src`, without tests.
pub fn count(directory: &Path) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut folders = vec![directory.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if stem == Some("tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => {
                    let text = fs::read_to_string(&path)?;
                    let of_file = rust(&text).with_context(|| path.display().to_string())?;
                    counts.lines += of_file.lines;
                    counts.unsafe_blocks += of_file.unsafe_blocks;
                    counts.unsafe_functions += of_file.unsafe_functions;
                }
                Some("S") => counts.lines += assembly(&fs::read_to_string(&path)?),
                _ => {}
            }
        }
    }
    Ok(counts)
}

fn assembly(text: &str) -> u64 {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    text.lines().filter(is_code).count() as u64
}

/// Counts one Rust file by its tokens, so that comments and blank lines have no say.
fn rust(text: &str) -> Result<Counts> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    let mut lines = BTreeSet::new();
    let mut counts = Counts::default();
    walk(stream, &mut lines, &mut counts);
    counts.lines = lines.len() as u64;
    Ok(counts)
}

fn walk(stream: TokenStream, lines: &mut BTreeSet<usize>, counts: &mut Counts) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match attribute(&tokens, at) {
            Some((Attribute::Documentation, next)) => {
                at = next;
                continue;
            }
            Some((Attribute::Test, next)) => {
                at = end_of_item(&tokens, next);
                continue;
            }
            None => {}
        }
        match token {
            TokenTree::Group(group) => {
                lines.insert(group.span_open().start().line);
                walk(group.stream(), lines, counts);
                lines.insert(group.span_close().end().line);
            }
            TokenTree::Ident(word) => {
                lines.insert(word.span().start().line);
                if word == "unsafe" {
                    note_unsafe(tokens.get(at + 1), counts);
                }
            }
            other => lines.extend(other.span().start().line..=other.span().end().line),
        }
        at += 1;
    }
}

fn note_unsafe(next: Option<&TokenTree>, counts: &mut Counts) {
    match next {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            counts.unsafe_blocks += 1;
        }
        Some(TokenTree::Ident(word)) if word == "fn" || word == "impl" || word == "extern" => {
            counts.unsafe_functions += 1;
        }
        // `#[unsafe(naked)]` and the like.
        _ => {}
    }
}

enum Attribute {
    Documentation,
    Test,
}

/// The attribute at `at` if it is one of these two, and where it ends.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(Attribute, usize)> {
    let is_mark =
        |token: &TokenTree, mark| matches!(token, TokenTree::Punct(p) if p.as_char() == mark);
    if !is_mark(tokens.get(at)?, '#') {
        return None;
    }
    let mut next = at + 1;
    if is_mark(tokens.get(next)?, '!') {
        next += 1;
    }
    let TokenTree::Group(group) = tokens.get(next)? else {
        return None;
    };
    let text: String = group
        .stream()
        .to_string()
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    if text.starts_with("doc=") {
        Some((Attribute::Documentation, next + 1))
    } else if text == "cfg(test)" || text == "test" {
        Some((Attribute::Test, next + 1))
    } else {
        None
    }
}

/// Past the item that begins at `at`: its braces, or its semicolon.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
            TokenTree::Punct(mark) if mark.as_char() == ';' => break,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_tests_are_no_code() {
        let text = "//! About.\n\n/// A function.\nfn f() {\n    // Why.\n    g();\n}\n\n#[cfg(test)]\nmod tests {\n    \
                    fn h() {}\n}\n";
        assert_eq!(rust(text).unwrap().lines, 3);
    }

    #[test]
    fn a_declaration_of_tests_ends_at_its_semicolon() {
        assert_eq!(
            rust("#[cfg(test)]\nmod tests;\nfn f() {}\n").unwrap().lines,
            1
        );
    }

    #[test]
    fn strings_over_several_lines_count_in_full() {
        assert_eq!(rust("const A: &str = \"a\n\n// b\";\n").unwrap().lines, 3);
    }

    #[test]
    fn unsafe_is_told_by_what_follows() {
        let counts = rust(
            "unsafe fn f() { unsafe { g() } }\nunsafe impl A for B {}\n#[unsafe(naked)] fn n() {}",
        )
        .unwrap();
        assert_eq!((counts.unsafe_blocks, counts.unsafe_functions), (1, 2));
    }

    #[test]
    fn crates_are_told_apart_by_their_directory() {
        let crates = sort(
            "hypervisor v0.1.0 (/a/src/hv)\nspin v0.10.1\naddr v0.1.0 (/a/src/abi/addr)\nspin v0.10.1\n",
        );
        assert_eq!((crates.own.len(), crates.foreign.len()), (2, 1));
    }
}
