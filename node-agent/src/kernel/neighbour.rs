//! Permanent neighbours on the tunnel interface: which peer a next hop is.

use super::{Error, Kernel, refused};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use packet::peer::{BY_HUB_MAC, Mac};
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

    /// Gives a neighbour up: it becomes stale, by the hub. The kernel asks again when it is next used, and packets go
    /// on meanwhile; to delete an entry in use would lose them. Unused, it ages out.
    pub async fn release_neighbour(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&BY_HUB_MAC).replace();
        let request = request.state(NeighbourState::Stale);
        request.execute().await.map_err(|e| refused(format!("release neighbour {address}"), e))
    }

    /// The permanent neighbours of the interface.
    pub async fn permanent_neighbours(&self, index: u32) -> Result<BTreeMap<IpAddr, Mac>, Error> {
        let messages = self.collect("neighbours", |k| k.neighbours().get().execute()).await?;
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
