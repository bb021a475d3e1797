//! An open channel.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::RingMem;
use ring_proto::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slot_proto::{GPADL_PAGES, RING_PAGES};

use crate::Mapping;

const PAGE: usize = 4096;

/// Why a channel is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The rings cannot be mapped.
    #[error("the rings of the channel cannot be mapped: {0}")]
    Map(#[source] io::Error),
    /// The channel was taken back: unmap it and close it at once.
    #[error("the channel was taken back by the hypervisor")]
    Gone,
    /// The device does not do what it should.
    #[error("the channel's device: {0}")]
    Device(#[source] io::Error),
}

impl ChannelError {
    fn of(error: io::Error) -> Self {
        // `uio_hv_generic` answers EIO after a rescind.
        match error.raw_os_error() {
            Some(5) => Self::Gone,
            _ => Self::Device(error),
        }
    }
}

/// An open channel: both rings, the way to signal and the interrupt.
///
/// To sleep: publish what was written and read, [`signal`](Self::signal), which arms the interrupt as well, look at
/// rings and pages once more, then [`wait`](Self::wait).
#[derive(Debug)]
pub struct Channel {
    file: File,
    mapping: Arc<Mapping>,
}

impl Channel {
    /// The channel of an open `/dev/uioN`, perhaps opened by another process.
    ///
    /// # Errors
    /// [`ChannelError::Map`].
    pub fn new(device: OwnedFd) -> Result<Self, ChannelError> {
        // The rings are number 0 of what the driver shows; number n is at page n.
        let mapping = Mapping::new(&device, 0, GPADL_PAGES * PAGE).map_err(ChannelError::Map)?;
        Ok(Self {
            file: device.into(),
            mapping: Arc::new(mapping),
        })
    }

    /// The ring towards the hypervisor.
    pub fn upstream(&self) -> Ring {
        Ring::new(Arc::clone(&self.mapping), 0)
    }

    /// The ring from the hypervisor.
    pub fn downstream(&self) -> Ring {
        Ring::new(Arc::clone(&self.mapping), RING_PAGES)
    }

    /// Signals the hypervisor. The kernel clears the mask of the downstream ring before: the interrupt is armed.
    ///
    /// # Errors
    /// [`ChannelError::Gone`], [`ChannelError::Device`].
    pub fn signal(&self) -> Result<(), ChannelError> {
        (&self.file)
            .write_all(&1_i32.to_ne_bytes())
            .map_err(ChannelError::of)
    }

    /// Waits for an interrupt that came since the last [`wait`](Self::wait) or [`take`](Self::take), at most
    /// `timeout`. Whether there was one. A signal to this process ends the wait early.
    ///
    /// # Errors
    /// [`ChannelError::Gone`], [`ChannelError::Device`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, ChannelError> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(ChannelError::Device(error.into())),
        }
        if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(ChannelError::Gone);
        }
        self.take()?;
        Ok(true)
    }

    /// Takes the interrupt that `poll` showed. It blocks when there is none.
    ///
    /// # Errors
    /// [`ChannelError::Gone`], [`ChannelError::Device`].
    pub fn take(&self) -> Result<(), ChannelError> {
        let mut count = [0; 4];
        loop {
            match (&self.file).read_exact(&mut count) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                other => return other.map_err(ChannelError::of),
            }
        }
    }

    /// Another descriptor of the same open file, for a worker or the holder.
    ///
    /// # Errors
    /// When the process has too many.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// One of the two rings, with a share in the mapping's life: a control page, then the data area.
#[derive(Clone, Debug)]
pub struct Ring {
    mapping: Arc<Mapping>,
    first_page: usize,
}

impl Ring {
    /// The ring of [`RING_PAGES`] pages that begins at page `first_page` of `mapping`.
    pub fn new(mapping: Arc<Mapping>, first_page: usize) -> Self {
        Self {
            mapping,
            first_page,
        }
    }

    fn control_at(&self, field: Control) -> Option<&std::sync::atomic::AtomicU32> {
        let index = self.first_page * PAGE / 4 + field.word();
        self.mapping.halves().get(index)
    }

    fn data_at(&self, at: u32) -> Option<&std::sync::atomic::AtomicU64> {
        if at >= self.data_bytes() || !at.is_multiple_of(8) {
            return None;
        }
        let index = (self.first_page + 1) * PAGE / 8 + at as usize / 8;
        self.mapping.words().get(index)
    }
}

impl RingMem for Ring {
    fn data_bytes(&self) -> u32 {
        ((RING_PAGES - 1) * PAGE) as u32
    }
    fn control(&self, field: Control) -> u32 {
        self.control_at(field)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }
    fn set_control(&self, field: Control, value: u32) {
        if let Some(word) = self.control_at(field) {
            word.store(value, Ordering::Release);
        }
    }
    fn word(&self, at: u32) -> u64 {
        self.data_at(at)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }
    fn set_word(&self, at: u32, value: u64) {
        if let Some(word) = self.data_at(at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{Outgoing, Reader, Writer};

    #[test]
    fn packets_go_through_a_mapped_ring_and_stay_out_of_the_other() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((GPADL_PAGES * PAGE) as u64).unwrap();
        let mapping = Arc::new(Mapping::new(&file, 0, GPADL_PAGES * PAGE).unwrap());
        let again = Arc::new(Mapping::new(&file, 0, GPADL_PAGES * PAGE).unwrap());
        let mut writer = Writer::new(Ring::new(mapping, RING_PAGES)).unwrap();
        let mut reader = Reader::new(Ring::new(Arc::clone(&again), RING_PAGES)).unwrap();
        let mut buffer = [0; 4224];
        let payload = [7; 4096];
        for _ in 0..100 {
            let packet = Outgoing {
                payload: &[&payload],
                ..Outgoing::default()
            };
            writer.put(&packet).unwrap();
            let _ = writer.commit();
            let packet = reader.next(&mut buffer).unwrap().unwrap();
            assert_eq!(packet.payload, payload);
            let _ = reader.publish();
        }
        let upstream = Ring::new(again, 0);
        assert_eq!(upstream.control(Control::WriteIndex), 0);
        assert!(
            (0..upstream.data_bytes())
                .step_by(8)
                .all(|at| upstream.word(at) == 0)
        );
        assert_eq!(upstream.word(65536), 0);
    }
}
