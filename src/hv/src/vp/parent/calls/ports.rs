//! Ports and connections that the parent makes, for itself and for its children.

use addr::PartitionId;
use hypercall::Body;
use tlfs::HvError;
use tlfs::call::{
    ConnectPort, ConnectionKind, CreatePort, DeletePort, DisconnectPort, RingEmpty, VP_ANY,
};

use super::super::ParentVp;
use super::Target;
use crate::partition::ports::{self, Peer};

impl ParentVp {
    fn peer(&self, id: PartitionId) -> Result<Peer, HvError> {
        Ok(match self.target(id)? {
            Target::Own => Peer::Parent(self.partition),
            Target::Child(child) => Peer::Child(child),
        })
    }

    /// HvCallCreatePort, from its owner's pool. Without memory nothing is made.
    pub(super) fn create_port(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = CreatePort::decode(body.header())?;
        let (owner, sender) = (self.peer(call.owner)?, self.peer(call.sender)?);
        let core = owner.core();
        if call.info.vp != VP_ANY && call.info.vp.get() >= core.vps.limit() {
            return Err(HvError::INVALID_VP_INDEX);
        }
        let sender = sender.core().id;
        let mut ports = core.links.ports()?;
        ports.create(call.port, sender, &call.info, &mut owner.chunks())
    }

    /// HvCallDeletePort. Connections to it stay, and are refused.
    pub(super) fn delete_port(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = DeletePort::decode(body.header())?;
        let owner = self.peer(call.owner)?;
        let mut ports = owner.core().links.ports()?;
        ports.delete(call.port, &mut owner.chunks())
    }

    /// HvCallConnectPort, from the sender's pool. Without memory nothing is connected.
    pub(super) fn connect_port(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = ConnectPort::decode(body.header())?;
        let (owner, sender) = (self.peer(call.owner)?, self.peer(call.sender)?);
        // No write of the parent is looked at.
        if matches!(
            (&sender, call.kind),
            (Peer::Parent(_), ConnectionKind::Doorbell(_))
        ) {
            return Err(HvError::INVALID_PARAMETER);
        }
        let id = sender.core().id;
        let to = owner.core().links.ports()?.connectable(
            call.port,
            id,
            &call.kind,
            &mut owner.chunks(),
        )?;
        let mut connections = sender.core().links.connections()?;
        connections.connect(call.connection, to, call.kind, &mut sender.chunks())
    }

    /// HvCallDisconnectPort.
    pub(super) fn disconnect_port(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = DisconnectPort::decode(body.header())?;
        let sender = self.peer(call.sender)?;
        let mut connections = sender.core().links.connections()?;
        connections.disconnect(call.connection, call.is_doorbell, &mut sender.chunks())
    }

    /// HvCallNotifyPortRingEmpty.
    pub(super) fn port_ring_empty(&mut self, body: &Body<'_>) -> Result<(), HvError> {
        let call = RingEmpty::decode(body.header())?;
        ports::ring_again(self.lp, self.partition, self.shared, call.sint.get());
        self.is_settled = false;
        Ok(())
    }
}
