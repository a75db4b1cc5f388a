//! Addresses: the tunnel's own, with the network's prefix length, so that next hops are on link as on any LAN.

use super::{Error, Kernel, refused};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use std::net::IpAddr;

impl Kernel {
    /// Every address of this node, with the index of its interface.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, Error> {
        let messages = self.collect("addresses", |k| k.address().get().execute()).await?;
        Ok(messages.iter().filter_map(|m| Some((m.header.index, parse(m)?))).collect())
    }

    /// Makes `wanted` the addresses of the interface inside `networks`; what lies outside them is somebody else's.
    pub async fn set_addresses(&self, index: u32, wanted: &[IpNet], networks: &[IpNet]) -> Result<(), Error> {
        let messages = self.address_messages(index).await?;
        let mut present = Vec::new();
        for message in messages {
            let Some(address) = parse(&message) else { continue };
            let ours = networks.iter().any(|n| n.contains(&address.addr()));
            if ours && !wanted.contains(&address) {
                match self.handle.address().del(message).execute().await {
                    Err(e) if !super::is_gone(&e) => {
                        return Err(refused(format!("remove address {address}"), e));
                    }
                    _ => {}
                }
            } else {
                present.push(address);
            }
        }
        for address in wanted.iter().filter(|a| !present.contains(a)) {
            let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                // Nobody on the overlay would answer the question whether somebody else has it; the hub says so.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.replace().execute().await.map_err(|e| refused(format!("add address {address}"), e))?;
        }
        Ok(())
    }

    async fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        self.collect("addresses", |k| k.address().get().set_link_index_filter(index).execute()).await
    }
}

fn parse(message: &AddressMessage) -> Option<IpNet> {
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            // IPv4: the address itself; `Address` is the far end on a point-to-point link.
            AddressAttribute::Local(a) => address = Some(*a),
            AddressAttribute::Address(a) if address.is_none() => address = Some(*a),
            _ => {}
        }
    }
    IpNet::new(address?, message.header.prefix_len).ok()
}
