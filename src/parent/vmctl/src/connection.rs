//! The connection to `vmms`.

use std::io::{BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use vmms_proto::{Reply, Request, receive, send};

/// A connection.
pub struct Connection {
    stream: UnixStream,
    from: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the daemon that listens at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                anyhow!("vmms does not run: nobody listens at {}", path.display())
            }
            ErrorKind::PermissionDenied => anyhow!("{}: run it as root", path.display()),
            _ => anyhow!("{}: {error}", path.display()),
        })?;
        let from = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, from })
    }

    /// Asks and waits for the answer; an error of vmms is an error.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        send(&self.stream, request).context("asking vmms")?;
        match receive(&mut self.from).context("vmms went away")? {
            Reply::Error(text) => bail!("{text}"),
            reply => Ok(reply),
        }
    }

    /// Becomes the console of child `name`.
    pub fn console(&mut self, name: &str) -> Result<()> {
        let name = name.to_owned();
        match self.ask(&Request::Console { name })? {
            Reply::Console => Ok(()),
            _ => bail!("vmms does not give the console"),
        }
    }

    /// The stream, and what was read of it already.
    pub fn parts(&self) -> (&UnixStream, &[u8]) {
        (&self.stream, self.from.buffer())
    }
}
