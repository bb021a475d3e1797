//! Names of formats.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Nothing but the disk's bytes; also a block device or a CD image.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// Hyper-V's format since Windows Server 2012.
    Vhdx,
    /// Hyper-V's older format, fixed or dynamic.
    Vhd,
}

impl Format {
    /// The format that a file of this name has by custom; a device has [`Format::Raw`].
    ///
    /// A name is the owner's word. What the file holds is not looked at: a child could write the header of another
    /// format to its raw disk, and have the parent open files that the header names.
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("raw" | "img" | "iso" | "ext4") => Some(Self::Raw),
            Some("qcow2") => Some(Self::Qcow2),
            Some("vhdx") => Some(Self::Vhdx),
            Some("vhd" | "vpc") => Some(Self::Vhd),
            _ if path.starts_with("/dev") => Some(Self::Raw),
            _ => None,
        }
    }

    /// The name of the format in a child's description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no image format: use raw, qcow2, vhdx or vhd")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        [Self::Raw, Self::Qcow2, Self::Vhdx, Self::Vhd]
            .into_iter()
            .find(|format| format.name() == word)
            .ok_or_else(|| UnknownFormat(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_endings_are_known() {
        assert_eq!("vhdx".parse(), Ok(Format::Vhdx));
        assert!("vmdk".parse::<Format>().is_err());
        assert_eq!(Format::of_name(Path::new("a/b.QCOW2")), Some(Format::Qcow2));
        assert_eq!(
            Format::of_name(Path::new("/dev/vg/root")),
            Some(Format::Raw)
        );
        assert_eq!(Format::of_name(Path::new("disk")), None);
    }
}
