//! Writers that are killed at any moment: what they flushed is there, and the image is whole.
#![allow(missing_docs, reason = "a test has no users")]

mod tools;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disk::{Format, Options, create, open};
use tools::{must, qemu_img, read, write};

const SIZE: u64 = 64 << 20;
const STEP: u64 = 192 * 1024;
const PLACE: &str = "VERDIGRIS_DISK_WRITER";

fn byte(round: u64, step: u64) -> u8 {
    (round * 31 + step * 7 + 1) as u8
}

/// Block for step `step`: over the whole disk, so that blocks of every format are allocated all the time.
fn at(step: u64) -> u64 {
    step * 37 % (SIZE / STEP) * STEP
}

/// Not a test of its own: the process that is killed. Says a number when everything up to it is flushed.
#[test]
fn writer() {
    let Some(place) = std::env::var_os(PLACE) else {
        return;
    };
    let place = place.into_string().unwrap();
    let (round, path) = place.split_once(' ').unwrap();
    let round: u64 = round.parse().unwrap();
    let path = Path::new(path);
    let image = open(path, &Options::new(Format::of_name(path).unwrap())).unwrap();
    for step in 0..SIZE / STEP {
        write(&*image, at(step), &vec![byte(round, step); STEP as usize]);
        if step % 3 == 2 {
            image.flush().unwrap();
            println!("\nflushed {step}");
            std::io::stdout().flush().unwrap();
        }
    }
    println!("\nflushed all");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_was_flushed_survives() {
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Raw, Format::Qcow2, Format::Vhdx, Format::Vhd] {
        for round in 1..4u64 {
            let path = folder.path().join(format!("disk-{round}.{format}"));
            create(&path, format, SIZE).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["writer", "--exact", "--nocapture"])
                .env(PLACE, format!("{round} {}", path.display()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut flushed = None;
            let mut seen = 0;
            for line in lines {
                let line = line.unwrap();
                let Some(step) = line.strip_prefix("flushed ") else {
                    continue;
                };
                flushed = step.parse::<u64>().ok().or(flushed);
                seen += 1;
                // Not at once: it is in the middle of the next steps then.
                if seen > round * 4 || step == "all" || Instant::now() > deadline {
                    std::thread::sleep(Duration::from_micros(round * 700));
                    break;
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let flushed = flushed.expect("the writer flushed nothing");
            let has_check = matches!(format, Format::Qcow2 | Format::Vhdx);
            if let Some(tool) = has_check.then(qemu_img).flatten() {
                let copy = folder.path().join(format!("copy.{format}"));
                std::fs::copy(&path, &copy).unwrap();
                // Clusters that leaked are no damage: `-r all` fails for what is.
                must(
                    &tool,
                    &[
                        "check",
                        "-r",
                        "all",
                        "-f",
                        format.name(),
                        copy.to_str().unwrap(),
                    ],
                );
                let image = open(&copy, &Options::new(format)).unwrap();
                for step in 0..=flushed {
                    let bytes = read(&*image, at(step), STEP as usize);
                    assert!(
                        bytes.iter().all(|one| *one == byte(round, step)),
                        "{format}, {step}, after QEMU's repair"
                    );
                }
            }
            let image = open(&path, &Options::new(format)).unwrap();
            for step in 0..=flushed {
                let bytes = read(&*image, at(step), STEP as usize);
                assert!(
                    bytes.iter().all(|one| *one == byte(round, step)),
                    "{format}, step {step} of {flushed}"
                );
            }
            write(&*image, 0, &[1; 512]);
            drop(image);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
