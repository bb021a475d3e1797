//! The file as it is written, and the way from it to a checked [`Config`].

use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use crate::console::Choice;
use crate::path::normalize;
use crate::{Config, Error, Hypervisor, LogLevel, OnFailure, OnPanic, Parent, RESERVE_MIB, Volume};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    parent: Option<ParentTable>,
    #[serde(default)]
    hypervisor: HypervisorTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParentTable {
    image: Option<String>,
    command_line: Option<String>,
    initrd: Option<String>,
    volume: Option<VolumeKey>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HypervisorTable {
    image: Option<String>,
    console: Option<Choice>,
    log_level: Option<LogLevelKey>,
    memory_reserve_mib: Option<u64>,
    on_panic: Option<OnPanicKey>,
    on_failure: Option<OnFailureKey>,
}

/// An enumeration of the file whose names are the lower-case ones of the checked type.
macro_rules! key {
    ($key:ident for $of:ident { $($variant:ident),+ }) => {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum $key { $($variant),+ }

        impl From<$key> for $of {
            fn from(key: $key) -> Self {
                match key { $($key::$variant => Self::$variant),+ }
            }
        }
    };
}

key!(VolumeKey for Volume { Any, Loader });
key!(LogLevelKey for LogLevel { Off, Error, Warn, Info, Debug, Trace });
key!(OnPanicKey for OnPanic { Halt, Reset });
key!(OnFailureKey for OnFailure { Firmware, Parent });

/// Reads a configuration file.
///
/// # Errors
/// The first fault, with its line where it has one, and what to write instead.
pub fn parse(text: &str) -> Result<Config, Error> {
    let file: File = toml::from_str(text).map_err(|error| Error::from_toml(text, &error))?;
    let Some(parent) = file.parent else {
        return Err(Error::without_line(
            "table [parent] is missing; it names the EFI program to start",
        ));
    };
    Ok(Config {
        parent: parent.check()?,
        hypervisor: file.hypervisor.check()?,
    })
}

fn path(key: &str, value: &str) -> Result<String, Error> {
    normalize(value).map_err(|fault| Error::without_line(format!("{key}: {fault}")))
}

impl ParentTable {
    fn check(self) -> Result<Parent, Error> {
        let Some(image) = self.image else {
            return Err(Error::without_line(
                r"key parent.image is missing; write image = '\EFI\...' under [parent]",
            ));
        };
        let command_line = self.command_line.unwrap_or_default();
        if command_line
            .chars()
            .any(|c| c.is_control() || c.len_utf16() != 1)
        {
            return Err(Error::without_line(
                "parent.command_line: must be one line without control characters or characters beyond UCS-2",
            ));
        }
        Ok(Parent {
            image: path("parent.image", &image)?,
            command_line,
            initrd: self
                .initrd
                .map(|initrd| path("parent.initrd", &initrd))
                .transpose()?,
            volume: self.volume.map_or_else(Volume::default, Volume::from),
        })
    }
}

impl HypervisorTable {
    fn check(self) -> Result<Hypervisor, Error> {
        let default = Hypervisor::default();
        if let Some(mib) = self.memory_reserve_mib
            && !RESERVE_MIB.contains(&mib)
        {
            return Err(Error::without_line(format!(
                "hypervisor.memory_reserve_mib: {mib} is out of range; write {} to {}, or leave it out",
                RESERVE_MIB.start(),
                RESERVE_MIB.end()
            )));
        }
        Ok(Hypervisor {
            image: self
                .image
                .map_or(Ok(default.image), |image| path("hypervisor.image", &image))?,
            console: self.console.and_then(|choice| choice.0),
            log_level: self.log_level.map_or(default.log_level, LogLevel::from),
            memory_reserve_mib: self.memory_reserve_mib,
            on_panic: self.on_panic.map_or(default.on_panic, OnPanic::from),
            on_failure: self.on_failure.map_or(default.on_failure, OnFailure::from),
        })
    }
}

#[cfg(test)]
mod tests;
