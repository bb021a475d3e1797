//! Every format against a model, against its own file after opening it again, and against QEMU's tools.
#![allow(missing_docs, reason = "a test has no users")]

mod tools;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use disk::{Format, Image, OpenError, Options, create, open};
use tempfile::TempDir;
use tools::{Model, must, qemu_img, read, run, write};

const SIZE: u64 = 18 << 20;

const FORMATS: [Format; 4] = [Format::Raw, Format::Qcow2, Format::Vhdx, Format::Vhd];

/// What `qemu-img` calls a format.
fn qemu_name(format: Format) -> &'static str {
    match format {
        Format::Vhd => "vpc",
        other => other.name(),
    }
}

fn place(folder: &TempDir, format: Format) -> PathBuf {
    folder.path().join(format!("disk.{format}"))
}

/// With the patience that a test needs: a process that another one of them starts has a copy of every descriptor, and so of
/// its lock, until its program begins.
fn options(format: Format) -> Options {
    Options::new(format)
}

/// Where somebody has the lock for good.
fn at_once(format: Format) -> Options {
    Options {
        lock_wait: Duration::ZERO,
        ..options(format)
    }
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn reopen(image: Arc<dyn Image>, path: &Path, format: Format) -> Arc<dyn Image> {
    drop(image);
    open(path, &options(format)).unwrap()
}

#[test]
fn images_hold_what_was_written() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        assert!(
            path.metadata().unwrap().blocks() * 512 < 10 << 20,
            "{format} is not thin"
        );
        let mut image = open(&path, &options(format)).unwrap();
        assert_eq!(image.size(), SIZE);
        let mut model = Model::new(SIZE, 1);
        for _ in 0..4 {
            for _ in 0..60 {
                model.step(&*image);
            }
            image.flush().unwrap();
            image = reopen(image, &path, format);
            model.check(&*image);
        }
    }
}

#[test]
fn without_the_page_cache_it_is_the_same() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        println!("{format}");
        let direct = Options {
            is_direct: true,
            ..options(format)
        };
        let image = match open(&path, &direct) {
            Ok(image) => image,
            Err(OpenError::Io { error, .. }) if error.raw_os_error() == Some(22) => {
                eprintln!("SKIPPED: the file system has no O_DIRECT");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let mut model = Model::new(SIZE, 4);
        for _ in 0..100 {
            model.step(&*image);
        }
        drop(image);
        let image = open(&path, &direct).unwrap();
        model.check(&*image);
        drop(image);
        let image = open(&path, &options(format)).unwrap();
        model.check(&*image);
    }
}

#[test]
fn qemu_reads_what_we_wrote() {
    let Some(tool) = qemu_img() else { return };
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        let image = open(&path, &options(format)).unwrap();
        let mut model = Model::new(SIZE, 2);
        for _ in 0..150 {
            model.step(&*image);
        }
        image.flush().unwrap();
        drop(image);
        let raw = folder.path().join("model.raw");
        std::fs::write(&raw, &model.bytes).unwrap();
        let name = qemu_name(format);
        if format != Format::Raw && format != Format::Vhd {
            must(&tool, &["check", "-f", name, word(&path)]);
        }
        must(
            &tool,
            &["compare", "-f", name, "-F", "raw", word(&path), word(&raw)],
        );
    }
}

#[test]
fn we_read_and_change_what_qemu_made() {
    let Some(tool) = qemu_img() else { return };
    let variants: &[(Format, &[&str])] = &[
        (Format::Qcow2, &[]),
        (Format::Qcow2, &["-o", "cluster_size=4k,compat=0.10"]),
        (Format::Qcow2, &["-o", "lazy_refcounts=on"]),
        (Format::Qcow2, &["-c"]),
        (Format::Vhdx, &[]),
        (Format::Vhdx, &["-o", "subformat=fixed"]),
        (Format::Vhdx, &["-o", "block_size=1M"]),
        (Format::Vhd, &["-o", "force_size=on"]),
        (Format::Vhd, &["-o", "subformat=fixed,force_size=on"]),
    ];
    for (format, extra) in variants {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.raw");
        let mut model = Model::new(SIZE, 3);
        create(&source, Format::Raw, SIZE).unwrap();
        let raw = open(&source, &options(Format::Raw)).unwrap();
        for _ in 0..80 {
            model.step(&*raw);
        }
        drop(raw);
        let path = place(&folder, *format);
        let name = qemu_name(*format);
        let mut words = vec!["convert", "-f", "raw", "-O", name];
        words.extend(*extra);
        words.extend([word(&source), word(&path)]);
        must(&tool, &words);
        let image = open(&path, &options(*format)).unwrap();
        model.check(&*image);
        for _ in 0..100 {
            model.step(&*image);
        }
        image.flush().unwrap();
        let image = reopen(image, &path, *format);
        model.check(&*image);
        drop(image);
        std::fs::write(&source, &model.bytes).unwrap();
        if *format != Format::Vhd {
            must(&tool, &["check", "-f", name, word(&path)]);
        }
        must(
            &tool,
            &[
                "compare",
                "-f",
                name,
                "-F",
                "raw",
                word(&path),
                word(&source),
            ],
        );
    }
}

#[test]
fn discarding_gives_space_back() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        let image = open(&path, &options(format)).unwrap();
        if image.traits().discard.is_none() {
            eprintln!("SKIPPED: the file system cannot punch holes");
            return;
        }
        write(&*image, 0, &vec![7; 16 << 20]);
        image.flush().unwrap();
        let used = || path.metadata().unwrap().blocks() * 512;
        assert!(used() >= 16 << 20);
        image.discard(512, (16 << 20) - 1024).unwrap();
        image.flush().unwrap();
        assert!(used() < 2 << 20, "{format}: {} bytes left", used());
        let back = read(&*image, 0, 16 << 20);
        assert!(back[..512] == [7; 512] && back[back.len() - 512..] == [7; 512]);
        assert!(back[512..back.len() - 512].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn sizes_change_while_open() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        let image = open(&path, &options(format)).unwrap();
        image.resize(2 * SIZE).unwrap();
        assert_eq!(image.size(), 2 * SIZE);
        assert!(
            read(&*image, 2 * SIZE - 4096, 4096)
                .iter()
                .all(|byte| *byte == 0)
        );
        write(&*image, 2 * SIZE - 512, &[9; 512]);
        assert!(image.resize(SIZE + 100).is_err());
        let image = reopen(image, &path, format);
        assert_eq!(image.size(), 2 * SIZE);
        assert_eq!(read(&*image, 2 * SIZE - 512, 512), [9; 512]);
    }
}

#[test]
fn a_raw_file_that_grew_is_seen_when_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = place(&folder, Format::Raw);
    create(&path, Format::Raw, SIZE).unwrap();
    let image = open(&path, &options(Format::Raw)).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(SIZE + 700)
        .unwrap();
    assert_eq!(image.size(), SIZE);
    assert_eq!(image.refresh().unwrap(), SIZE + 512);
}

#[test]
fn ranges_outside_and_changes_of_what_is_read_only_are_refused() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        let image = open(&path, &options(format)).unwrap();
        let bytes = [1; 1024];
        for at in [SIZE - 512, SIZE, u64::MAX - 511, u64::MAX] {
            assert!(image.write(at, disk::IoVector::from(&bytes[..])).is_err());
            let mut buffer = [0; 1024];
            assert!(
                image
                    .read(at, disk::IoVectorMut::from(&mut buffer[..]))
                    .is_err()
            );
            assert!(image.write_zeroes(at, 1024).is_err());
            assert!(image.discard(at, 1024).is_err());
        }
        drop(image);
        let read_only = Options {
            is_read_only: true,
            ..options(format)
        };
        let first = open(&path, &read_only).unwrap();
        let second = open(&path, &read_only).unwrap();
        assert!(first.traits().is_read_only && first.traits().discard.is_none());
        assert!(second.write(0, disk::IoVector::from(&bytes[..])).is_err());
        assert!(second.discard(0, 512).is_err() && second.write_zeroes(0, 512).is_err());
        assert!(second.resize(2 * SIZE).is_err());
        second.flush().unwrap();
        assert!(matches!(
            open(&path, &at_once(format)),
            Err(OpenError::Locked(_))
        ));
    }
}

#[test]
fn nobody_shares_an_image_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = place(&folder, Format::Qcow2);
    create(&path, Format::Qcow2, SIZE).unwrap();
    let image = open(&path, &options(Format::Qcow2)).unwrap();
    assert!(matches!(
        open(&path, &at_once(Format::Qcow2)),
        Err(OpenError::Locked(_))
    ));
    if let Some(tool) = qemu_img() {
        let (is_good, text) = run(&tool, &["check", "-f", "qcow2", word(&path)]);
        assert!(!is_good && text.contains("lock"), "{text}");
        drop(image);
        must(&tool, &["check", "-f", "qcow2", word(&path)]);
        let read_only = Options {
            is_read_only: true,
            ..options(Format::Qcow2)
        };
        let image = open(&path, &read_only).unwrap();
        // A reader beside us is welcome, a writer is not.
        must(&tool, &["info", "-f", "qcow2", word(&path)]);
        let (is_good, _) = run(&tool, &["resize", "-f", "qcow2", word(&path), "48M"]);
        assert!(!is_good);
        drop(image);
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.raw");
    let said = |path: &Path, format| open(path, &options(format)).err().unwrap().to_string();
    assert!(said(&missing, Format::Raw).contains("does not exist"));
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, vec![0x5A; 1 << 20]).unwrap();
    for format in [Format::Qcow2, Format::Vhdx, Format::Vhd] {
        let text = said(&garbage, format);
        assert!(
            text.contains("no good") && text.contains(format.name()),
            "{text}"
        );
    }
    assert!(said(folder.path(), Format::Raw).contains("image"));
    let raw = place(&folder, Format::Raw);
    create(&raw, Format::Raw, SIZE).unwrap();
    assert!(matches!(
        create(&raw, Format::Raw, SIZE),
        Err(OpenError::Exists(_))
    ));
    assert!(create(&folder.path().join("odd"), Format::Raw, 1000).is_err());
    assert!(!folder.path().join("odd").exists());
}

#[test]
fn an_image_that_names_other_files_must_be_trusted() {
    let Some(tool) = qemu_img() else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.qcow2");
    create(&base, Format::Qcow2, SIZE).unwrap();
    let image = open(&base, &options(Format::Qcow2)).unwrap();
    write(&*image, 4096, &[5; 512]);
    drop(image);
    let top = place(&folder, Format::Qcow2);
    must(
        &tool,
        &[
            "create",
            "-f",
            "qcow2",
            "-b",
            word(&base),
            "-F",
            "qcow2",
            word(&top),
        ],
    );
    assert!(open(&top, &options(Format::Qcow2)).is_err());
    let follow = Options {
        backing: disk::Backing::Follow,
        ..options(Format::Qcow2)
    };
    let image = open(&top, &follow).unwrap();
    assert_eq!(read(&*image, 4096, 512), [5; 512]);
    write(&*image, 4608, &[6; 512]);
    image.discard(4096, 512).unwrap();
    image.flush().unwrap();
    assert_eq!(read(&*image, 4096, 512), [0; 512]);
    assert_eq!(read(&*image, 4608, 512), [6; 512]);
    drop(image);
    must(&tool, &["check", "-f", "qcow2", word(&top)]);
}

#[test]
fn requests_run_side_by_side() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = place(&folder, format);
        create(&path, format, SIZE).unwrap();
        let image = open(&path, &options(format)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let image = &*image;
                scope.spawn(move || {
                    for step in 0..100 {
                        // Blocks of all threads in each cluster.
                        let at = (step * 4 + thread) * 4096;
                        write(image, at, &[(thread * 50 + step % 50) as u8; 4096]);
                        if step % 16 == thread {
                            image.flush().unwrap();
                        }
                    }
                });
            }
        });
        image.flush().unwrap();
        let image = reopen(image, &path, format);
        for step in 0..100u64 {
            for thread in 0..4u64 {
                let bytes = read(&*image, (step * 4 + thread) * 4096, 4096);
                assert_eq!(bytes, [(thread * 50 + step % 50) as u8; 4096]);
            }
        }
    }
}
