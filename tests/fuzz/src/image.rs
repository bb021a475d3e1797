//! A disk's image.

use std::io;
use std::sync::Mutex;

use disk::{Discard, Image, ImageTraits, IoVector, IoVectorMut};

/// An image in memory, as strict as a file: accesses beyond its end panic.
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    pub fn new(bytes: usize) -> Self {
        Self(Mutex::new(vec![0x5A; bytes]))
    }
}

impl Image for Memory {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn traits(&self) -> ImageTraits {
        ImageTraits {
            is_read_only: false,
            logical_block: 512,
            physical_block: 4096,
            discard: Some(Discard { granularity: 4096 }),
        }
    }

    fn read(&self, at: u64, mut into: IoVectorMut<'_>) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let end = at as usize + into.len() as usize;
        into.copy_from_slice(&bytes[at as usize..end]);
        Ok(())
    }

    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let end = at as usize + from.len() as usize;
        from.copy_into_slice(&mut bytes[at as usize..end]);
        Ok(())
    }

    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()> {
        self.0.lock().unwrap()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(at, len)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(bytes as usize, 0);
        Ok(())
    }
}
