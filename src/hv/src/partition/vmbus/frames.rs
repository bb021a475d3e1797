//! Frames that a server and its records lie in.
#![expect(unsafe_code, reason = "names frames that are a server's")]

use addr::{PAGE_SIZE, Spa};
use ports::{ChunkId, Chunks};
use tlfs::HvError;
use vmbus::{Content, FrameId, Frames, Server};

use crate::mm::phys;
use crate::partition::ports::{FrameChunks, spa_of};

impl Frames for FrameChunks<'_> {
    fn allocate(&mut self) -> Option<FrameId> {
        Chunks::allocate(self).map(|chunk| FrameId(chunk.0))
    }

    fn free(&mut self, frame: FrameId) {
        Chunks::free(self, ChunkId(frame.0));
    }

    fn get<T: Content>(&mut self, frame: FrameId) -> Option<&mut T> {
        let spa = spa_of(ChunkId(frame.0))?;
        // SAFETY: a server names frames that it allocated and has not freed, always as the same type, and it is locked
        // meanwhile; contents fit in a frame, and zeros are a value of them.
        Some(unsafe { &mut *phys::pointer(spa).cast() })
    }
}

impl FrameChunks<'_> {
    /// Puts a server into a frame.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`.
    pub(super) fn place_server(&mut self, server: Server) -> Result<&'static mut Server, HvError> {
        const { assert!(size_of::<Server>() <= PAGE_SIZE as usize) };
        let spa = Chunks::allocate(self).and_then(spa_of);
        let place = phys::pointer(spa.ok_or(HvError::INSUFFICIENT_MEMORY)?).cast::<Server>();
        // SAFETY: the frame was just allocated, is large enough and aligned to a page.
        unsafe { place.write(server) };
        // SAFETY: written above, and nobody else knows of it.
        Ok(unsafe { &mut *place })
    }

    /// Frees the frame of a server, which has no others.
    pub(super) fn free_server(&mut self, server: &'static mut Server) {
        let spa: Spa = phys::spa_of((&raw const *server).cast());
        if let Ok(name) = u32::try_from(spa.get() / PAGE_SIZE + 1) {
            Chunks::free(self, ChunkId(name));
        }
    }
}
