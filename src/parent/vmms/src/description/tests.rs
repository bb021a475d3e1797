use super::*;

const MINIMAL: &str = "name = \"web\"\nmemory = \"512M\"\nkernel = \"/boot/vmlinuz\"\n";

fn error(text: &str) -> String {
    Description::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_left_out_has_a_value() {
    let child = Description::parse(MINIMAL).unwrap();
    assert_eq!((child.vps, child.memory_bytes), (1, 512 << 20));
    assert_eq!(child.command_line, "console=ttyS0");
    assert_eq!(child.restart, Restart::OnReset);
    assert_eq!(child.on_crash, OnCrash::Continue);
    assert!(child.has_console && !child.autostart && child.disks.is_empty());
}

#[test]
fn everything_can_be_said() {
    let text = format!(
        "{MINIMAL}vps = 4\ninitrd = \"/boot/initrd\"\ncommand_line = \"root=/dev/sda\"\nconsole = \"none\"\n\
         restart = \"always\"\non_crash = \"stop\"\nautostart = true\nstop_seconds = 5\n\
         [[disk]]\npath = \"/a.qcow2\"\nformat = \"qcow2\"\nserial = \"A 1\"\n\
         [[disk]]\npath = \"/cd.iso\"\ncdrom = true\n"
    );
    let child = Description::parse(&text).unwrap();
    assert_eq!((child.vps, child.stop_seconds), (4, 5));
    assert_eq!(child.restart, Restart::Always);
    assert_eq!(child.on_crash, OnCrash::Stop);
    assert!(!child.has_console && child.autostart);
    let [disk, cd] = &child.disks[..] else {
        panic!("{child:?}")
    };
    assert_eq!(
        (disk.format, disk.read_only, disk.cdrom),
        (ImageFormat::Qcow2, false, false)
    );
    assert_eq!(disk.serial.as_deref(), Some("A 1"));
    assert_eq!(
        (cd.format, cd.read_only, cd.cdrom),
        (ImageFormat::Raw, true, true)
    );
}

#[test]
fn each_wrong_field_is_named_with_its_cure() {
    let with = |line: &str| format!("{MINIMAL}{line}\n");
    for (text, field, cure) in [
        (with("vps = 0"), "vps = 0", "1 to 64"),
        (with("vps = 65"), "vps = 65", "1 to 64"),
        (with("vps = \"2\""), "vps", "expected"),
        (with("colour = 1"), "colour", "memory"),
        (with("initrd = \"initrd\""), "initrd", "whole path"),
        (with("console = \"com2\""), "console", "\"none\""),
        (with("restart = \"maybe\""), "restart", "on-reset"),
        (with("restart = 7"), "restart", "on-reset"),
        (with("on_crash = [true]"), "on_crash", "continue"),
        (
            with("[[disk]]\npath = \"/x\"\nformat = { a = 1 }"),
            "format",
            "qcow2",
        ),
        (with("on_crash = \"reset\""), "on_crash", "continue"),
        (with("stop_seconds = -1"), "stop_seconds", "0 to 3600"),
        (with("[[disk]]"), "disk", "path"),
        (with("[[disk]]\npath = \"x\""), "disk 0: path", "whole path"),
        (
            with("[[disk]]\npath = \"/x\"\nformat = \"zip\""),
            "format",
            "qcow2",
        ),
        (with("[[disk]]\npath = \"/x\"\nmode = 1"), "mode", "serial"),
        (
            with("[[disk]]\npath = \"/x\"\nserial = \"\""),
            "disk 0: serial",
            "20 printable",
        ),
        (
            with("[[disk]]\npath = \"/x\"\ncdrom = true\nread_only = false"),
            "disk 0: read_only",
            "leave the field out",
        ),
        (
            with(&format!("command_line = \"{}\"", "x".repeat(3000))),
            "command_line",
            "2047",
        ),
    ] {
        let error = error(&text);
        assert!(error.contains(field) && error.contains(cure), "{error}");
    }
    for (from, to, field, cure) in [
        ("512M", "512", "memory = \"512\"", "such as"),
        ("512M", "5M", "memory = \"5M\"", "multiple of 2M"),
        ("512M", "0M", "memory", "multiple of 2M"),
        ("512M", "99999999999G", "memory", "too large"),
        ("512M", "2T", "memory", "1023G"),
        ("web", "../web", "name", "letters"),
        ("web", "", "name", "letters"),
        ("/boot/vmlinuz", "vmlinuz", "kernel", "whole path"),
    ] {
        let error = error(&MINIMAL.replace(from, to));
        assert!(error.contains(field) && error.contains(cure), "{error}");
    }
    let missing = error("name = \"web\"\nmemory = \"2M\"\n");
    assert!(missing.contains("kernel"), "{missing}");
}

#[test]
fn a_field_of_another_type_is_shown_with_what_is_expected() {
    const VALUES: [&str; 6] = ["\"x\"", "7", "1.5", "true", "[[1]]", "{ a = 1 }"];
    let good = |field: &str| match field {
        "name" => "name = \"web\"\n",
        "memory" => "memory = \"512M\"\n",
        "kernel" => "kernel = \"/boot/vmlinuz\"\n",
        _ => "",
    };
    let plain = |field: &str| match field {
        "vps" | "stop_seconds" => "7",
        "autostart" | "read_only" | "cdrom" => "true",
        _ => "\"x\"",
    };
    let fields = [
        (
            "",
            &[
                "name",
                "vps",
                "memory",
                "kernel",
                "initrd",
                "command_line",
                "console",
                "restart",
                "on_crash",
                "autostart",
                "stop_seconds",
                "disk",
            ][..],
        ),
        (
            "[[disk]]\n",
            &["path", "format", "read_only", "cdrom", "serial"],
        ),
    ];
    for (table, names) in fields {
        for field in names {
            for value in VALUES.into_iter().filter(|&value| value != plain(field)) {
                let others = ["name", "memory", "kernel"]
                    .into_iter()
                    .filter(|other| other != field);
                let head: String = others.map(good).collect();
                let error = error(&format!("{head}{table}{field} = {value}\n"));
                let says_what = error.contains("expected");
                let is_shown = error.contains(&format!("{field} = {value}"));
                assert!(is_shown && says_what, "{field} = {value}: {error}");
            }
        }
    }
}

#[test]
fn a_text_that_is_no_toml_is_shown_where_it_ends_to_be() {
    for (text, shown) in [
        ("name = \"web\nmemory", "line 2"),
        ("name = \"web\"\nname = \"two\"", "duplicate key"),
        ("name = \"web\"\n[disk]\npath = \"/x\"", "line 2"),
        ("\u{FEFF}\0", "line 1"),
    ] {
        let error = error(text);
        assert!(error.contains(shown), "{error}");
    }
}

#[test]
fn files_are_found_and_must_have_the_name_of_their_child() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("web.toml"), MINIMAL).unwrap();
    std::fs::write(path("other.toml"), MINIMAL).unwrap();
    std::fs::write(path("note.txt"), "x").unwrap();
    assert_eq!(load(directory.path(), "web").unwrap().name, "web");
    let error = load(directory.path(), "other").unwrap_err().to_string();
    assert!(
        error.contains("other.toml") && error.contains("name = \"web\""),
        "{error}"
    );
    let error = load(directory.path(), "none").unwrap_err().to_string();
    assert!(error.contains("none.toml"), "{error}");
    assert!(load(directory.path(), "../web").is_err());
    let found = all(directory.path());
    let names: Vec<_> = found
        .iter()
        .map(|(name, child)| (&**name, child.is_ok()))
        .collect();
    assert_eq!(names, [("other", false), ("web", true)]);
}
