//! Permanent neighbours on the tunnel interface: which peer a next hop is.

use super::{Error, Kernel, collect, is_gone, refused};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use packet::peer::Mac;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Kernel {
    /// Installs or replaces a permanent neighbour.
    pub async fn set_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let mut request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        request
            .message_mut()
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::Other(super::route::NHRP)));
        request.execute().await.map_err(|e| refused(format!("neighbour {address}"), e))
    }

    /// Removes a neighbour; it may be gone already.
    pub async fn remove_neighbour(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = index;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(a) => NeighbourAddress::Inet(a),
            IpAddr::V6(a) => NeighbourAddress::Inet6(a),
        }));
        match self.handle.neighbours().del(message).execute().await {
            Err(e) if !is_gone(&e) => Err(refused(format!("remove neighbour {address}"), e)),
            _ => Ok(()),
        }
    }

    /// The permanent neighbours of the interface.
    pub async fn permanent_neighbours(&self, index: u32) -> Result<BTreeMap<IpAddr, Mac>, Error> {
        let messages = collect("neighbours", self.handle.neighbours().get().execute()).await?;
        let ours = messages
            .iter()
            .filter(|m| m.header.ifindex == index && m.header.state == NeighbourState::Permanent);
        Ok(ours.filter_map(parse).collect())
    }
}

fn parse(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::V6(*a)),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = Mac::try_from(octets.as_slice()).ok(),
            _ => {}
        }
    }
    // Multicast groups have permanent-looking entries of the kernel's own (NUD_NOARP); those never get here.
    Some((address?, mac?))
}
