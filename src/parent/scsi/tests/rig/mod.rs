//! A target with its child's memory, for the tests.
#![allow(dead_code, missing_docs)]

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use disk::{Discard, Image, ImageTraits, IoVector, IoVectorMut};
use scsi::{Cdrom, Completion, Data, Disk, DiskOptions, Identity, ScatterList, Sense, Target};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// An image in memory that counts flushes and discards, and fails when told to.
pub struct Memory {
    pub bytes: Mutex<Vec<u8>>,
    pub traits: ImageTraits,
    pub flushes: AtomicUsize,
    pub discarded: AtomicU64,
    pub failure: Mutex<Option<io::ErrorKind>>,
}

/// Bytes that tell blocks of 512 apart.
fn pattern(size: usize) -> Vec<u8> {
    let row: Vec<u8> = (0..768).map(|at| at as u8).collect();
    let mut bytes = Vec::with_capacity(size + 512);
    for block in 0..size.div_ceil(512) {
        bytes.extend_from_slice(&row[block % 256..][..512]);
    }
    bytes.truncate(size);
    bytes
}

impl Memory {
    pub fn new(size: usize) -> Self {
        Self {
            bytes: Mutex::new(pattern(size)),
            traits: ImageTraits {
                is_read_only: false,
                logical_block: 512,
                physical_block: 4096,
                discard: Some(Discard { granularity: 4096 }),
            },
            flushes: AtomicUsize::new(0),
            discarded: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    fn fail(&self) -> io::Result<()> {
        match *self.failure.lock().unwrap() {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }
}

impl Image for Memory {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn traits(&self) -> ImageTraits {
        self.traits
    }

    fn read(&self, at: u64, mut into: IoVectorMut<'_>) -> io::Result<()> {
        self.fail()?;
        let bytes = self.bytes.lock().unwrap();
        let end = at as usize + into.len() as usize;
        into.copy_from_slice(&bytes[at as usize..end]);
        Ok(())
    }

    fn write(&self, at: u64, from: IoVector<'_>) -> io::Result<()> {
        self.fail()?;
        assert!(!self.traits.is_read_only, "written though read-only");
        let mut bytes = self.bytes.lock().unwrap();
        let end = at as usize + from.len() as usize;
        from.copy_into_slice(&mut bytes[at as usize..end]);
        Ok(())
    }

    fn write_zeroes(&self, at: u64, len: u64) -> io::Result<()> {
        self.fail()?;
        assert!(!self.traits.is_read_only, "zeroed though read-only");
        self.bytes.lock().unwrap()[at as usize..(at + len) as usize].fill(0);
        Ok(())
    }

    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(at, len)?;
        self.discarded.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.fail()?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }
}

/// Where the buffer of a command starts in the child's memory: neither on a page nor on four bytes.
pub const BUFFER: u64 = 0x1_0003;

/// The child's memory has bytes up to here.
pub const MEMORY: usize = 0x20_0000;

pub struct Rig {
    pub memory: GuestMemoryMmap,
    pub target: Target,
    pub image: Arc<Memory>,
    pub disk: Arc<Disk>,
    pub cdrom: Arc<Cdrom>,
}

pub fn identity() -> Identity {
    Identity {
        unique_id: *b"0123456789abcdef",
        serial: "serial-7".into(),
    }
}

/// LUN 0 is a disk with this image, LUN 2 a drive with a medium of 700 blocks.
pub fn rig_of(image: Memory, has_write_cache: bool) -> Rig {
    let image = Arc::new(image);
    let options = DiskOptions {
        identity: identity(),
        has_write_cache,
    };
    let disk = Arc::new(Disk::new(image.clone(), options));
    let medium: Arc<dyn Image> = Arc::new(Memory::new(700 * 2048));
    let cdrom = Arc::new(Cdrom::new(Some(medium), identity()));
    let target = Target::new();
    target.insert(0, disk.clone()).unwrap();
    target.insert(2, cdrom.clone()).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    Rig {
        memory,
        target,
        image,
        disk,
        cdrom,
    }
}

pub fn rig() -> Rig {
    rig_of(Memory::new(1 << 20), true)
}

impl Rig {
    /// Two pieces that are no neighbours, `len` bytes together.
    pub fn list(&self, len: usize) -> ScatterList<'_> {
        let first = len / 3;
        let pieces = [
            (GuestAddress(BUFFER), first),
            (GuestAddress(BUFFER + 0x10_0000), len - first),
        ];
        ScatterList::new(&self.memory, pieces).unwrap()
    }

    /// A command that reads into a buffer of `len` bytes: its end and the buffer.
    pub fn read(&self, lun: u8, cdb: &[u8], len: usize) -> (Completion, Vec<u8>) {
        let list = self.list(len);
        list.copy_in(&vec![0xEE; len]);
        let end = self.target.execute(lun, cdb, &Data::In(list.clone()));
        let mut buffer = vec![0; len];
        list.copy_out(&mut buffer);
        (end, buffer)
    }

    /// A command that answers, at most 512 bytes.
    pub fn answer(&self, lun: u8, cdb: &[u8]) -> Vec<u8> {
        let (end, mut buffer) = self.read(lun, cdb, 512);
        let Completion::Good(len) = end else {
            panic!("{cdb:02x?}: {end:?}");
        };
        assert!(buffer[len as usize..].iter().all(|byte| *byte == 0xEE));
        buffer.truncate(len as usize);
        buffer
    }

    pub fn write(&self, lun: u8, cdb: &[u8], bytes: &[u8]) -> Completion {
        let list = self.list(bytes.len());
        list.copy_in(bytes);
        self.target.execute(lun, cdb, &Data::Out(list))
    }

    pub fn none(&self, lun: u8, cdb: &[u8]) -> Completion {
        self.target.execute(lun, cdb, &Data::None)
    }

    #[track_caller]
    pub fn refused(&self, lun: u8, cdb: &[u8], sense: Sense) {
        let (end, buffer) = self.read(lun, cdb, 4096);
        assert_eq!(end, Completion::Check(sense), "{cdb:02x?}");
        assert!(buffer.iter().all(|byte| *byte == 0xEE));
    }

    /// The child's memory up to `end`.
    pub fn memory_below(&self, end: usize) -> Vec<u8> {
        let mut bytes = vec![0; end];
        self.memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }
}

/// A descriptor block of ten bytes.
pub fn cdb_10(opcode: u8, flags: u8, lba: u32, count: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&count.to_be_bytes());
    cdb
}

/// A descriptor block of sixteen bytes.
pub fn cdb_16(opcode: u8, flags: u8, lba: u64, count: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    cdb
}
