//! The sending side.

use addr::Gpa;
use tlfs::HvError;
use tlfs::call::{ConnectionId, ConnectionKind};

use crate::chunk::Chunks;
use crate::map::{Key, Map};
use crate::record::{At, Connection, KIND_DOORBELL, KIND_EVENT, KIND_MESSAGE};
use crate::{PortRef, port};

/// The connections of one partition. Doorbells have numbers of their own.
#[derive(Debug)]
pub struct Connections(Map<Connection>);

fn by_number(id: ConnectionId, is_doorbell: bool) -> Key {
    (0, u64::from(id.0) | u64::from(is_doorbell) << 32)
}

/// Doorbells are chained by address and value, of which there may be many to an address.
fn by_write(gpa: u64, value: Option<u64>) -> Key {
    let value = value.map_or(u64::MAX, |value| value.rotate_left(32) ^ 1);
    (1, gpa ^ value.wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

impl Connection {
    fn keys(&self) -> [Key; 2] {
        let value = (self.is_any_value == 0).then_some(self.value);
        let id = ConnectionId(self.id);
        [
            by_number(id, self.kind == KIND_DOORBELL),
            by_write(self.gpa, value),
        ]
    }

    /// In how many of its keys' chains it is.
    fn chained(&self) -> usize {
        if self.kind == KIND_DOORBELL { 2 } else { 1 }
    }
}

impl Connections {
    /// None.
    pub const fn new() -> Self {
        Self(Map::EMPTY)
    }

    /// Connects number `id` with a port that [`crate::Ports::connectable`] gave (`HvCallConnectPort`).
    ///
    /// # Errors
    /// [`HvError::INVALID_CONNECTION_ID`]: more than 24 bits, or in use. [`HvError::INVALID_PARAMETER`]: a doorbell for
    /// the same writes is there. [`HvError::INSUFFICIENT_MEMORY`]: deposit and call again. Nothing was changed.
    pub fn connect(
        &mut self,
        id: ConnectionId,
        to: PortRef,
        kind: ConnectionKind,
        chunks: &mut impl Chunks,
    ) -> Result<(), HvError> {
        let new = Connection::new(id, to, kind);
        let is_doorbell = new.kind == KIND_DOORBELL;
        if id.0 > port::ID_MAX || self.at(id, is_doorbell, chunks).is_some() {
            return Err(HvError::INVALID_CONNECTION_ID);
        }
        if is_doorbell && self.same_write(&new, chunks).is_some() {
            return Err(HvError::INVALID_PARAMETER);
        }
        if !self.0.reserve(chunks) {
            return Err(HvError::INSUFFICIENT_MEMORY);
        }
        let keys = new.keys();
        let keys = keys.get(..new.chained()).unwrap_or(&keys);
        self.0
            .insert(keys, new, chunks)
            .map(|_| ())
            .ok_or(HvError::OPERATION_FAILED)
    }

    /// `HvCallDisconnectPort`.
    ///
    /// # Errors
    /// [`HvError::INVALID_CONNECTION_ID`]: no such connection.
    pub fn disconnect(
        &mut self,
        id: ConnectionId,
        is_doorbell: bool,
        chunks: &mut impl Chunks,
    ) -> Result<(), HvError> {
        let at = self.at(id, is_doorbell, chunks);
        let (at, old) = at
            .and_then(|at| Some((at, *self.0.get(at, chunks)?)))
            .ok_or(HvError::INVALID_CONNECTION_ID)?;
        let keys = old.keys();
        self.0
            .remove(keys.get(..old.chained()).unwrap_or(&keys), at, chunks);
        Ok(())
    }

    /// Where messages through connection `id` go.
    ///
    /// # Errors
    /// [`HvError::INVALID_CONNECTION_ID`]: no such connection, or one for something else.
    pub fn message(&self, id: ConnectionId, chunks: &mut impl Chunks) -> Result<PortRef, HvError> {
        self.of_kind(id, KIND_MESSAGE, chunks)
    }

    /// Where events through connection `id` go.
    ///
    /// # Errors
    /// [`HvError::INVALID_CONNECTION_ID`]: no such connection, or one for something else.
    pub fn event(&self, id: ConnectionId, chunks: &mut impl Chunks) -> Result<PortRef, HvError> {
        self.of_kind(id, KIND_EVENT, chunks)
    }

    /// Which port a write of `bytes` bytes of `value` (extended by zeros) at `gpa` rings, if any: first one for this
    /// value, then one for any.
    pub fn doorbell(
        &self,
        gpa: Gpa,
        bytes: u8,
        value: u64,
        chunks: &mut impl Chunks,
    ) -> Option<PortRef> {
        [Some(value), None].into_iter().find_map(|wanted| {
            let at = self.0.find(by_write(gpa.get(), wanted), chunks, |c| {
                c.gpa == gpa.get()
                    && (c.bytes == 0 || c.bytes == bytes)
                    && (c.is_any_value != 0) == wanted.is_none()
                    && wanted.is_none_or(|value| c.value == value)
            })?;
            self.0
                .get(at, chunks)
                .map(|connection| connection.port_ref())
        })
    }

    /// Whether there is none at all: then no write needs a look.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partition goes: gives some chunks back. False when all are; only then may the object be used again.
    pub fn release(&mut self, chunks: &mut impl Chunks) -> bool {
        self.0.release(chunks, |_, _| {})
    }

    fn of_kind(
        &self,
        id: ConnectionId,
        kind: u8,
        chunks: &mut impl Chunks,
    ) -> Result<PortRef, HvError> {
        let at = self.at(id, false, chunks);
        at.and_then(|at| self.0.get(at, chunks))
            .filter(|connection| connection.kind == kind)
            .map(|connection| connection.port_ref())
            .ok_or(HvError::INVALID_CONNECTION_ID)
    }

    fn at(&self, id: ConnectionId, is_doorbell: bool, chunks: &mut impl Chunks) -> Option<At> {
        self.0.find(by_number(id, is_doorbell), chunks, |c| {
            c.id == id.0 && (c.kind == KIND_DOORBELL) == is_doorbell
        })
    }

    fn same_write(&self, new: &Connection, chunks: &mut impl Chunks) -> Option<At> {
        let [_, key] = new.keys();
        self.0.find(key, chunks, |c| {
            (c.gpa, c.bytes, c.is_any_value, c.value)
                == (new.gpa, new.bytes, new.is_any_value, new.value)
        })
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}
