//! Descriptions of children: `/etc/verdigris/children/NAME.toml`.

mod size;
mod source;

use std::fmt;
use std::path::PathBuf;

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer, Serialize};
use worker_link::ImageFormat;
use worker_link::pages::VPS_MAX;

pub use source::{all, load};

/// A child as it was described, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name, also that of its file.
    pub name: String,
    /// VPs, from 1.
    pub vps: u32,
    /// RAM in bytes, as `child_layout` can place it.
    pub memory_bytes: u64,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Arguments of the kernel.
    pub command_line: String,
    /// Units of the SCSI controller, in order.
    pub disks: Vec<Disk>,
    /// Whether COM1 is relayed.
    pub has_console: bool,
    /// What follows its end.
    pub restart: Restart,
    /// What follows a crash that its kernel reports.
    #[serde(default)]
    pub on_crash: OnCrash,
    /// Whether it starts with the system.
    pub autostart: bool,
    /// Seconds that it may take to switch itself off.
    pub stop_seconds: u32,
}

/// One unit of the SCSI controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Image or block device.
    pub path: PathBuf,
    /// Layout of the file.
    pub format: ImageFormat,
    /// The child may not write.
    pub read_only: bool,
    /// It is a CD drive.
    pub cdrom: bool,
    /// Serial number that the child sees.
    pub serial: Option<String>,
}

/// What follows the end of a child that nobody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    Never,
    /// It is started again when it reset itself, or its worker died.
    #[default]
    OnReset,
    /// It is started again.
    Always,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::OnReset => "on-reset",
            Self::Always => "always",
        })
    }
}

/// What follows a crash that a child's kernel reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCrash {
    /// It goes on, as a machine does: to its dump kernel, a reset of its own, or nowhere.
    #[default]
    Continue,
    /// It is switched off, its disks flushed.
    Stop,
    /// The same, and it is started again, whatever [`Restart`] says.
    Restart,
}

impl fmt::Display for OnCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continue => "continue",
            Self::Stop => "stop",
            Self::Restart => "restart",
        })
    }
}

/// What is wrong with a description: where, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionError(pub String);

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DescriptionError {}

fn wrong<T>(text: impl Into<String>) -> Result<T, DescriptionError> {
    Err(DescriptionError(text.into()))
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default = "one")]
    vps: i64,
    memory: String,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    #[serde(default = "serial_console")]
    command_line: String,
    #[serde(default)]
    disk: Vec<FileDisk>,
    #[serde(default = "com1")]
    console: String,
    #[serde(default, deserialize_with = "word")]
    restart: Restart,
    #[serde(default, deserialize_with = "word")]
    on_crash: OnCrash,
    #[serde(default)]
    autostart: bool,
    #[serde(default = "a_minute")]
    stop_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDisk {
    path: PathBuf,
    #[serde(default, deserialize_with = "word")]
    format: ImageFormat,
    read_only: Option<bool>,
    #[serde(default)]
    cdrom: bool,
    serial: Option<String>,
}

/// A word of the list that `T` is. A value of another type is refused as a word that is not in it: the message then names
/// those that are.
fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(file: D) -> Result<T, D::Error> {
    let text = match toml::Value::deserialize(file)? {
        toml::Value::String(text) => text,
        other => format!("a value of type {}", other.type_str()),
    };
    T::deserialize(text.into_deserializer())
}

fn one() -> i64 {
    1
}

fn a_minute() -> i64 {
    60
}

fn com1() -> String {
    "com1".to_owned()
}

fn serial_console() -> String {
    "console=ttyS0".to_owned()
}

/// Units of one controller.
const DISKS_MAX: usize = 64;
/// What the boot protocol of every kernel of interest takes.
const COMMAND_LINE_MAX: usize = 2047;

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// The field, what is wrong with it and what helps.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let file: File = toml::from_str(text).map_err(|error| {
            // The message names the line and shows it, unknown fields with the known ones.
            DescriptionError(error.to_string().trim_end().to_owned())
        })?;
        check_name(&file.name)?;
        let vps = match u32::try_from(file.vps) {
            Ok(vps @ 1..=VPS_MAX) => vps,
            _ => {
                return wrong(format!(
                    "vps = {}: give a number from 1 to {VPS_MAX}",
                    file.vps
                ));
            }
        };
        let memory_bytes =
            size::parse(&file.memory).map_err(|why| memory_error(&file.memory, &why))?;
        child_layout::layout(memory_bytes)
            .map_err(|error| memory_error(&file.memory, &error.to_string()))?;
        check_path("kernel", &file.kernel)?;
        if let Some(initrd) = &file.initrd {
            check_path("initrd", initrd)?;
        }
        if file.command_line.len() > COMMAND_LINE_MAX || file.command_line.contains('\0') {
            return wrong(format!(
                "command_line: {} bytes; give at most {COMMAND_LINE_MAX}, none of them 0",
                file.command_line.len()
            ));
        }
        let has_console = match &*file.console {
            "com1" => true,
            "none" => false,
            other => {
                return wrong(format!("console = {other:?}: give \"com1\" or \"none\""));
            }
        };
        let stop_seconds = match u32::try_from(file.stop_seconds) {
            Ok(seconds @ 0..=3600) => seconds,
            _ => {
                return wrong(format!(
                    "stop_seconds = {}: give a number from 0 to 3600",
                    file.stop_seconds
                ));
            }
        };
        if file.disk.len() > DISKS_MAX {
            return wrong(format!(
                "disk: {} of them; a child has at most {DISKS_MAX}",
                file.disk.len()
            ));
        }
        let disks = file.disk.into_iter().enumerate().map(disk);
        Ok(Self {
            name: file.name,
            vps,
            memory_bytes,
            kernel: file.kernel,
            initrd: file.initrd,
            command_line: file.command_line,
            disks: disks.collect::<Result<_, _>>()?,
            has_console,
            restart: file.restart,
            on_crash: file.on_crash,
            autostart: file.autostart,
            stop_seconds,
        })
    }
}

fn memory_error(memory: &str, why: &str) -> DescriptionError {
    DescriptionError(format!("memory = {memory:?}: {why}"))
}

fn disk((index, file): (usize, FileDisk)) -> Result<Disk, DescriptionError> {
    let field = format!("disk {index}: path");
    check_path(&field, &file.path)?;
    if file.cdrom && file.read_only == Some(false) {
        return wrong(format!(
            "disk {index}: read_only = false: a CD is never written; leave the field out"
        ));
    }
    if let Some(serial) = &file.serial {
        let is_plain = serial
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if serial.is_empty() || serial.len() > 20 || !is_plain {
            return wrong(format!(
                "disk {index}: serial = {serial:?}: give 1 to 20 printable ASCII characters"
            ));
        }
    }
    Ok(Disk {
        path: file.path,
        format: file.format,
        read_only: file.cdrom || file.read_only.unwrap_or(false),
        cdrom: file.cdrom,
        serial: file.serial,
    })
}

/// Checks the name of a child, which is also the name of files.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), DescriptionError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_first && name.len() <= 48 && name.bytes().all(is_plain) {
        return Ok(());
    }
    wrong(format!(
        "name = {name:?}: give 1 to 48 letters, digits, '-', '_' or '.', a letter or digit first"
    ))
}

fn check_path(field: &str, path: &std::path::Path) -> Result<(), DescriptionError> {
    if path.is_absolute() {
        return Ok(());
    }
    wrong(format!(
        "{field} = {path:?}: give the whole path, from / on"
    ))
}

#[cfg(test)]
mod tests;
