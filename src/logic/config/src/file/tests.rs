extern crate std;

use alloc::string::ToString;
use proptest::prelude::*;

use super::*;
use crate::{Console, DEFAULT_HYPERVISOR};

const FULL: &str = r#"
[parent]
image = '\EFI\debian\shimx64.efi'
command_line = "console=ttyS0 quiet"
initrd = "/EFI/verdigris/initrd.img"
volume = "loader"

[hypervisor]
image = '\hv.elf'
console = { port = 0x2F8, baud = 9600 }
log_level = "trace"
memory_reserve_mib = 64
on_panic = "reset"
on_failure = "parent"
"#;

fn fault(text: &str) -> std::string::String {
    parse(text).expect_err("must be refused").to_string()
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.parent.image, r"\EFI\debian\shimx64.efi");
    assert_eq!(
        config.parent.initrd.as_deref(),
        Some(r"\EFI\verdigris\initrd.img")
    );
    assert_eq!(config.parent.volume, Volume::Loader);
    assert_eq!(
        config.hypervisor.console,
        Some(Console {
            port: 0x2F8,
            divisor: 12
        })
    );
    assert_eq!(config.hypervisor.console.unwrap().baud(), 9600);
    assert_eq!(config.hypervisor.log_level, LogLevel::Trace);
    assert_eq!(config.hypervisor.memory_reserve_mib, Some(64));
    assert_eq!(config.hypervisor.on_panic, OnPanic::Reset);
    assert_eq!(config.hypervisor.on_failure, OnFailure::Parent);
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = include_str!("../../../../../boot/verdigris.example.toml");
    let as_is = parse(example).unwrap();
    assert_eq!(as_is.hypervisor, Hypervisor::default());

    let uncommented: std::string::String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting)
                if setting
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                setting
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let all = parse(&uncommented).unwrap();
    assert!(all.parent.initrd.is_some() && !all.parent.command_line.is_empty());
    assert_eq!(all.parent.volume, Volume::default());
    assert_eq!(
        all.hypervisor,
        Hypervisor {
            memory_reserve_mib: Some(64),
            ..Hypervisor::default()
        }
    );
}

#[test]
fn the_smallest_file_names_an_image_and_gets_the_defaults() {
    let config = parse(r"parent.image = '\linux.efi'").unwrap();
    assert_eq!(config.hypervisor, Hypervisor::default());
    assert_eq!(config.hypervisor.image, DEFAULT_HYPERVISOR);
    assert_eq!(config.parent.command_line, "");
    assert_eq!(config.parent.volume, Volume::Any);
}

#[test]
fn console_names_are_the_four_ports_and_none() {
    for (name, port) in [
        ("com1", 0x3F8),
        ("com2", 0x2F8),
        ("com3", 0x3E8),
        ("com4", 0x2E8),
    ] {
        let config = parse(&format!("parent.image='/a'\nhypervisor.console = '{name}'")).unwrap();
        assert_eq!(
            config.hypervisor.console,
            Some(Console { port, divisor: 1 })
        );
    }
    let config = parse("parent.image='/a'\nhypervisor.console = 'none'").unwrap();
    assert_eq!(config.hypervisor.console, None);
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_right_ones() {
    let message = fault("[parent]\nimage = '/a'\n\n[hypervisor]\nlogg_level = 'info'\n");
    assert!(
        message.starts_with("line 5: unknown field `logg_level`"),
        "{message}"
    );
    assert!(message.contains("`log_level`"), "{message}");
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_the_right_ones() {
    let message = fault("[parent]\nimage = '/a'\n[hypervisor]\non_panic = 'explode'\n");
    assert!(message.starts_with("line 4: "), "{message}");
    assert!(
        message.contains("`halt`") && message.contains("`reset`"),
        "{message}"
    );

    let message = fault("[parent]\nimage = '/a'\n[hypervisor]\nconsole = 'com9'\n");
    assert!(
        message.starts_with("line 4: ") && message.contains("\"com1\" to \"com4\""),
        "{message}"
    );

    let message = fault("[parent]\nimage = 7\n");
    assert!(
        message.starts_with("line 2: ") && message.contains("expected a string"),
        "{message}"
    );
}

#[test]
fn broken_toml_is_one_line_with_its_number() {
    for text in [
        "[parent\nimage = 1",
        "[parent]\nimage = 'unfinished\n",
        "= 3",
        "[parent]\nimage = '/a'\nimage = '/b'",
    ] {
        let message = fault(text);
        assert!(message.starts_with("line "), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn missing_keys_come_with_their_cure() {
    assert!(fault("").contains("[parent] is missing"));
    assert!(fault("[parent]\ncommand_line = 'x'").contains("parent.image is missing; write"));
}

#[test]
fn values_out_of_range_are_refused() {
    let with = |line: &str| fault(&format!("parent.image = '/a'\n{line}"));
    assert!(with("hypervisor.memory_reserve_mib = 1").contains("out of range"));
    assert!(with("hypervisor.memory_reserve_mib = -5").starts_with("line 2: "));
    assert!(
        with("hypervisor.console = { port = 0x3F8, baud = 12345 }")
            .contains("use a divisor of 115200")
    );
    assert!(with("hypervisor.console = { port = 0x3F8, baud = 0 }").contains("0 baud"));
    assert!(with("hypervisor.console = { port = 0x3F8, baud = 1 }").contains("too slow"));
    assert!(with("hypervisor.console = { port = 2 }").contains("not the port"));
    assert!(with("hypervisor.console = { baud = 9600 }").contains("port"));
    assert!(with("hypervisor.console = { port = 0x3F8, speed = 9600 }").contains("`speed`"));
    assert!(
        with("hypervisor.image = 'hv.elf'").contains("hypervisor.image: path `hv.elf` must start")
    );
    assert!(fault("parent.image = '/EFI/'").contains("names a directory"));
    assert!(fault("[parent]\nimage = '/a'\ncommand_line = \"a\\nb\"").contains("one line"));
}

proptest! {
    /// Whatever the bytes, parsing ends with a configuration or one line of text.
    #[test]
    fn any_text_gives_a_configuration_or_one_line(text in "\\PC*|[\\[\\]a-z_.='\"\\\\\n 0-9{},#]*") {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().is_empty());
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    /// One changed byte of a good file is parsed or refused, and never brings the parser down.
    #[test]
    fn a_damaged_file_is_refused_or_still_valid(at in 0..FULL.len(), byte in 0x20u8..0x7F) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = parse(core::str::from_utf8(&bytes).unwrap());
    }
}
