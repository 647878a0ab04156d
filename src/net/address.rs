//! Where a node may be found, and how iroh names a node.

use std::{collections::BTreeSet, net::SocketAddr};

use iroh::{Endpoint, EndpointAddr, EndpointId, RelayUrl, TransportAddr};

use crate::{id::Author, limits::ADDRESSES_MAX, wire::net};

/// Returns iroh's id of `node`. `None` if the bytes are not a valid public key.
pub(super) fn endpoint_id(node: &Author) -> Option<EndpointId> {
    EndpointId::from_bytes(&node.0).ok()
}

/// Returns the node that has `id` in iroh.
pub(super) fn node_of(id: &EndpointId) -> Author {
    Author(*id.as_bytes())
}

/// Where a node may be found. Only a hint: the handshake proves which node answers there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// IP addresses and ports. At most `ADDRESSES_MAX`.
    pub direct: BTreeSet<SocketAddr>,
    /// A relay to which the node is connected. `None` without one.
    pub relay: Option<RelayUrl>,
}

impl Addresses {
    /// Returns where `endpoint` may be found.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self::from_iroh(&endpoint.addr())
    }

    /// Returns the addresses in `addr`, the first `ADDRESSES_MAX` of them.
    pub(super) fn from_iroh(addr: &EndpointAddr) -> Self {
        Self {
            direct: addr.ip_addrs().copied().take(ADDRESSES_MAX).collect(),
            relay: addr.relay_urls().next().cloned(),
        }
    }

    /// Returns the form that iroh dials.
    pub(super) fn to_iroh(&self, id: EndpointId) -> EndpointAddr {
        let direct = self.direct.iter().copied().map(TransportAddr::Ip);
        let relay = self.relay.iter().cloned().map(TransportAddr::Relay);
        EndpointAddr::from_parts(id, direct.chain(relay))
    }

    /// True when there is neither an address nor a relay.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relay.is_none()
    }

    /// Reads a message. Texts in it that are not addresses are left out.
    pub(super) fn from_wire(message: &net::Addresses) -> Self {
        let direct = message.direct.iter().take(ADDRESSES_MAX);
        Self {
            direct: direct.filter_map(|text| text.parse().ok()).collect(),
            relay: message.relay.parse().ok(),
        }
    }

    /// Returns the message that `from_wire` reads.
    pub(super) fn to_wire(&self) -> net::Addresses {
        net::Addresses {
            direct: self.direct.iter().map(ToString::to_string).collect(),
            relay: self
                .relay
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }
}
