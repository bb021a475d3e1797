//! Commands with buffers: nothing outside of a buffer changes.

use std::sync::Arc;

use arbitrary::Arbitrary;
use scsi::{Cdrom, Completion, Data, Disk, DiskOptions, Identity, ScatterList, Target};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Memory, target};

#[derive(Arbitrary, Debug)]
struct Command {
    lun: u8,
    cdb: Vec<u8>,
    way: u8,
    pieces: [(u16, u16); 3],
    content: Vec<u8>,
}

const MEMORY: usize = 0x1_2000;

target!(|commands: Vec<Command>| {
    let identity = || Identity::new([7; 16]);
    let options = DiskOptions {
        identity: identity(),
        has_write_cache: true,
    };
    let target = Target::new();
    let disk = Disk::new(Arc::new(Memory::new(64 * 512)), options);
    target.insert(0, Arc::new(disk)).unwrap();
    let drive = Cdrom::new(Some(Arc::new(Memory::new(20 * 2048))), identity());
    target.insert(1, Arc::new(drive)).unwrap();
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let snapshot = || {
        let mut bytes = vec![0; MEMORY];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    };
    for command in commands.iter().take(16) {
        let pieces = command
            .pieces
            .map(|(at, len)| (GuestAddress(at.into()), usize::from(len % 0x1400)));
        let list = ScatterList::new(&memory, pieces).unwrap();
        list.copy_in(&command.content);
        let before = snapshot();
        let (data, is_in) = match command.way % 3 {
            0 => (Data::None, false),
            1 => (Data::In(list.clone()), true),
            _ => (Data::Out(list.clone()), false),
        };
        let end = target.execute(command.lun % 3, &command.cdb, &data);
        let after = snapshot();
        if before != after {
            for (at, (old, new)) in before.iter().zip(&after).enumerate() {
                let is_inside = pieces.iter().any(|(start, len)| {
                    let start = start.0 as usize;
                    (start..start + len).contains(&at)
                });
                assert!(old == new || is_in && is_inside, "{at:#x} changed");
            }
        }
        match end {
            Completion::Good(moved) => assert!(moved as usize <= list.len()),
            _ => assert!(before == after, "a refused command moved data"),
        }
    }
});
