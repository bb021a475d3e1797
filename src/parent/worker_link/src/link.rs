//! Packets with files.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{FromWorker, ToWorker};

/// Bytes of the longest message.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Files that can go with one message.
pub const FDS_MAX: usize = 96;

const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(96));

/// Why nothing was sent or received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side is gone.
    #[error("the other side closed the link")]
    Closed,
    /// Nothing is there yet, or there is no room now.
    #[error("nothing to receive, or no room to send")]
    WouldBlock,
    /// More files or a longer message than fit.
    #[error("the message or its files do not fit: {MESSAGE_MAX} bytes and {FDS_MAX} files do")]
    TooLong,
    /// What came is no message of the other side.
    #[error("what came over the link is no message: {0}")]
    Malformed(String),
    /// The socket failed.
    #[error("the link failed: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for LinkError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::WouldBlock,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            error => Self::Io(error.into()),
        }
    }
}

/// One end of the link: sends `Out`, receives `In`. `Link<ToWorker, FromWorker>` is `vmms`'s end, the other way round the
/// worker's.
///
/// Neither end blocks: [`Link::send`] and [`Link::receive`] say [`LinkError::WouldBlock`], and [`Link::wait`] waits.
#[derive(Debug)]
pub struct Link<Out, In> {
    socket: OwnedFd,
    kinds: PhantomData<fn(Out) -> In>,
}

/// Both ends: of `vmms`, and of the worker.
pub type Pair = (Link<ToWorker, FromWorker>, Link<FromWorker, ToWorker>);

impl Link<ToWorker, FromWorker> {
    /// A new pair. Both close on exec: `vmms` hands the worker's end to its new process itself.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn pair() -> Result<Pair, LinkError> {
        let (daemon, worker) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Link::new(daemon), Link::new(worker)))
    }
}

impl<Out: Serialize, In: DeserializeOwned> Link<Out, In> {
    /// The end that `socket` is: from [`Link::pair`], through whatever kept it. The socket must not block; it is so for
    /// all who have a copy of it.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            kinds: PhantomData,
        }
    }

    /// The socket, for another process or a holder to keep.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a message, with files.
    ///
    /// # Errors
    /// [`LinkError`]; nothing was sent.
    pub fn send(&self, message: &Out, files: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let text = serde_json::to_vec(message).map_err(|e| LinkError::Malformed(e.to_string()))?;
        if text.len() > MESSAGE_MAX || files.len() > FDS_MAX {
            return Err(LinkError::TooLong);
        }
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(LinkError::TooLong);
        }
        loop {
            let sent = sendmsg(
                &self.socket,
                &[IoSlice::new(&text)],
                &mut ancillary,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
            match sent {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Receives a message and its files.
    ///
    /// # Errors
    /// [`LinkError`]. What is malformed is gone, and so are its files.
    pub fn receive(&self) -> Result<(In, Vec<OwnedFd>), LinkError> {
        let mut text = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut parts = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(received) => break received,
            }
        };
        let mut files = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                files.extend(fds);
            }
        }
        if received.bytes == 0 {
            return Err(LinkError::Closed);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(LinkError::Malformed("it is cut off".into()));
        }
        let message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())
            .map_err(|e| LinkError::Malformed(e.to_string()))?;
        Ok((message, files))
    }

    /// Waits until something can be received, or the other side is gone. `false`: the time is over.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> Result<bool, LinkError> {
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| LinkError::Io(io::ErrorKind::InvalidInput.into()))?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            // The caller looks, finds nothing and waits again.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(ready) => Ok(ready > 0),
        }
    }
}

impl<Out, In> AsFd for Link<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FdIndex, Start, StopReason};
    use std::fs::File;
    use std::io::{Read, Write};
    use std::time::Duration;

    fn start() -> Start {
        Start {
            name: "one".into(),
            partition: 2,
            vps: 1,
            memory_bytes: 64 << 20,
            slot: 0,
            generation: 7,
            slot_fd: FdIndex(0),
            ram_fd: FdIndex(0),
            pages_fd: FdIndex(0),
            kernel_fd: FdIndex(0),
            initrd_fd: None,
            console_fd: Some(FdIndex(1)),
            log_fd: None,
            command_line: "console=ttyS0".into(),
            disks: Vec::new(),
            identity: None,
        }
    }

    #[test]
    fn messages_arrive_whole_and_with_their_files() {
        let (daemon, worker) = Link::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let message = ToWorker::Start(Box::new(start()));
        daemon
            .send(&message, &[reader.as_fd(), writer.as_fd()])
            .unwrap();
        daemon.send(&ToWorker::Run, &[]).unwrap();
        drop((reader, writer));
        assert!(worker.wait(Some(Duration::ZERO)).unwrap());
        let (received, files) = worker.receive().unwrap();
        assert_eq!(received, message);
        let [reader, writer] = <[OwnedFd; 2]>::try_from(files).unwrap();
        File::from(writer).write_all(b"through").unwrap();
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(worker.receive().unwrap().0, ToWorker::Run);
        assert!(matches!(worker.receive(), Err(LinkError::WouldBlock)));
        let stopped = FromWorker::Stopped {
            reason: StopReason::TripleFault { vp: 3, rip: 0x1000 },
        };
        worker.send(&stopped, &[]).unwrap();
        drop(worker);
        assert_eq!(daemon.receive().unwrap().0, stopped);
        assert!(matches!(daemon.receive(), Err(LinkError::Closed)));
        assert!(matches!(
            daemon.send(&ToWorker::Stop, &[]),
            Err(LinkError::Closed)
        ));
    }

    #[test]
    fn other_words_are_malformed_and_long_ones_are_refused() {
        let (daemon, worker) = Link::pair().unwrap();
        let daemon = Link::<String, FromWorker>::new(daemon.into_socket());
        daemon.send(&"what?".to_owned(), &[]).unwrap();
        assert!(matches!(worker.receive(), Err(LinkError::Malformed(_))));
        let long = "x".repeat(MESSAGE_MAX);
        assert!(matches!(daemon.send(&long, &[]), Err(LinkError::TooLong)));
        let file = worker.as_fd();
        let many = vec![file; FDS_MAX + 1];
        assert!(matches!(
            daemon.send(&String::new(), &many),
            Err(LinkError::TooLong)
        ));
        let most = vec![file; FDS_MAX];
        daemon.send(&String::new(), &most).unwrap();
        assert!(matches!(worker.receive(), Err(LinkError::Malformed(_))));
    }
}
