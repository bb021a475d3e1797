//! Which child has which image: two that write to the same one are refused before either waits for a lock.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Mutex;

/// A file, whatever path it is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// A file: its file system and its number there.
    File(u64, u64),
    /// A block device: its number.
    Device(u64),
}

impl Image {
    /// The image with this metadata.
    pub fn of(data: &Metadata) -> Self {
        match data.file_type().is_block_device() {
            true => Self::Device(data.rdev()),
            false => Self::File(data.dev(), data.ino()),
        }
    }
}

#[derive(Debug)]
struct Use {
    image: Image,
    child: String,
    writes: bool,
}

/// All images in use.
#[derive(Debug, Default)]
pub struct Images(Mutex<Vec<Use>>);

impl Images {
    /// Notes that `child` uses `image`.
    ///
    /// # Errors
    /// The child that has it, when one of the two writes. Nothing was noted.
    pub fn claim(&self, child: &str, image: Image, writes: bool) -> Result<(), String> {
        let mut uses = self.0.lock().unwrap_or_else(|error| error.into_inner());
        let other = uses
            .iter()
            .find(|used| used.image == image && (used.writes || writes));
        if let Some(other) = other {
            return Err(other.child.clone());
        }
        uses.push(Use {
            image,
            child: child.to_owned(),
            writes,
        });
        Ok(())
    }

    /// Forgets everything that `child` uses.
    pub fn release(&self, child: &str) {
        let mut uses = self.0.lock().unwrap_or_else(|error| error.into_inner());
        uses.retain(|used| used.child != child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_shared_by_readers_alone() {
        let images = Images::default();
        let (cd, disk) = (Image::File(1, 2), Image::File(1, 3));
        images.claim("a", cd, false).unwrap();
        images.claim("b", cd, false).unwrap();
        assert_eq!(images.claim("c", cd, true), Err("a".to_owned()));
        images.claim("a", disk, true).unwrap();
        assert_eq!(images.claim("b", disk, false), Err("a".to_owned()));
        assert_eq!(images.claim("a", disk, true), Err("a".to_owned()));
        images.release("a");
        images.claim("b", disk, true).unwrap();
        assert_eq!(images.claim("c", cd, true), Err("b".to_owned()));
    }

    #[test]
    fn an_image_is_the_same_by_every_name() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("1"), directory.path().join("2"));
        std::fs::write(&one, "x").unwrap();
        std::os::unix::fs::symlink(&one, &two).unwrap();
        let of = |path| Image::of(&std::fs::metadata(path).unwrap());
        assert_eq!(of(&one), of(&two));
        assert_ne!(of(&one), of(&directory.path().to_owned()));
    }
}
