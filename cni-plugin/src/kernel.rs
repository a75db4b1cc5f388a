//! The kernel of one network namespace, by rtnetlink: a question at a time, each answered before the next.

use crate::error::Error;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_core::ErrorMessage;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use tokio::runtime::{Builder, Runtime};

/// The main routing table.
const MAIN: u32 = 254;

/// An open socket, of the namespace of the thread that opened it.
pub(crate) struct Kernel {
    runtime: Runtime,
    handle: Handle,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// As people write it.
    pub(crate) mac: String,
    /// What whoever made it called it.
    pub(crate) alias: String,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, Error> {
        let failed = |e: std::io::Error| kernel("open a netlink socket", e);
        let runtime = Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let entered = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        runtime.spawn(connection);
        drop(entered);
        Ok(Self { runtime, handle })
    }

    /// The interface of this name.
    pub(crate) fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match self.runtime.block_on(found.try_next()) {
            Ok(message) => Ok(message.as_ref().map(Link::parse)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(kernel(format!("look for interface {name}"), e)),
        }
    }

    /// Every interface.
    pub(crate) fn links(&self) -> Result<Vec<Link>, Error> {
        let all: Result<Vec<_>, _> = self.runtime.block_on(self.handle.link().get().execute().try_collect());
        Ok(all.map_err(|e| kernel("list interfaces", e))?.iter().map(Link::parse).collect())
    }

    /// Makes a pair of interfaces: `name` here, `peer` in the namespace `there`.
    pub(crate) fn add_pair(&self, name: &str, peer: &str, there: &File, mtu: u32) -> Result<(), Error> {
        let mut message = LinkVeth::new(name, peer).mtu(mtu).build();
        for attribute in &mut message.attributes {
            if let LinkAttribute::LinkInfo(infos) = attribute {
                for info in infos {
                    use netlink_packet_route::link::{InfoData, InfoVeth, LinkInfo};
                    if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                        peer.attributes.push(LinkAttribute::Mtu(mtu));
                        peer.attributes.push(LinkAttribute::NetNsFd(there.as_raw_fd()));
                    }
                }
            }
        }
        let what = format!("make interfaces {name} and {peer}");
        self.wait(what, self.handle.link().add(message).execute())
    }

    /// Sets it up, and says in its alias whose it is.
    pub(crate) fn set_up(&self, link: &Link, alias: Option<&str>) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_index(link.index).up();
        if let Some(alias) = alias {
            message = message.append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()));
        }
        self.wait(format!("set {} up", link.name), self.handle.link().set(message.build()).execute())
    }

    /// Deletes it; a pair goes together. It may be gone already.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        let deleted = self.runtime.block_on(self.handle.link().del(link.index).execute());
        match deleted {
            Err(e) if !is_gone(&e) => Err(kernel(format!("delete interface {name}"), e)),
            _ => Ok(()),
        }
    }

    /// Gives it an address, usable at once: addresses that are given out need no detection of duplicates.
    pub(crate) fn add_address(&self, link: &Link, address: IpNet) -> Result<(), Error> {
        let mut request =
            self.handle.address().add(link.index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.wait(format!("address {address} of {}", link.name), request.execute())
    }

    /// Its addresses.
    pub(crate) fn addresses(&self, link: &Link) -> Result<Vec<IpAddr>, Error> {
        let request = self.handle.address().get().set_link_index_filter(link.index);
        let all: Result<Vec<AddressMessage>, _> = self.runtime.block_on(request.execute().try_collect());
        let all = all.map_err(|e| kernel(format!("addresses of {}", link.name), e))?;
        let of = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        };
        Ok(all.iter().filter_map(|message| message.attributes.iter().find_map(of)).collect())
    }

    /// Routes `prefix` by the interface: to what is on link, or by a gateway.
    pub(crate) fn add_route(&self, link: &Link, prefix: IpNet, gateway: Option<IpAddr>) -> Result<(), Error> {
        let what = format!("route {prefix} by {}", link.name);
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(prefix.network(), prefix.prefix_len())
            .map_err(|e| kernel(&what, e))?
            .output_interface(link.index);
        match gateway {
            Some(gateway) => message = message.gateway(gateway).map_err(|e| kernel(&what, e))?,
            None => message = message.scope(RouteScope::Link),
        }
        self.put_route(message.build(), &what)
    }

    /// Puts a route in the place of the one that differs from it in nothing that names it.
    pub(crate) fn put_route(&self, route: RouteMessage, what: &str) -> Result<(), Error> {
        self.wait(what, self.handle.route().add(route).replace().execute())
    }

    /// Routes of the main table that leave by the interface.
    pub(crate) fn routes(&self, link: &Link) -> Result<Vec<RouteMessage>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let found = self.handle.route().get(query).execute();
            let all: Result<Vec<RouteMessage>, _> = self.runtime.block_on(found.try_collect());
            routes.extend(all.map_err(|e| kernel("list routes", e))?);
        }
        routes.retain(|route| {
            table(route) == MAIN && route.attributes.contains(&RouteAttribute::Oif(link.index))
        });
        Ok(routes)
    }

    fn wait(
        &self,
        what: impl std::fmt::Display,
        request: impl Future<Output = Result<(), rtnetlink::Error>>,
    ) -> Result<(), Error> {
        self.runtime.block_on(request).map_err(|e| kernel(what, e))
    }
}

impl Link {
    fn parse(message: &LinkMessage) -> Self {
        let (mut name, mut mac, mut alias) = (String::new(), String::new(), String::new());
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name.clone_from(text),
                LinkAttribute::IfAlias(text) => alias.clone_from(text),
                LinkAttribute::Address(octets) => {
                    mac = octets.iter().map(|o| format!("{o:02x}")).collect::<Vec<_>>().join(":");
                }
                _ => {}
            }
        }
        Self { index: message.header.index, name, mac, alias }
    }
}

fn table(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| u32::from(route.header.table))
}

fn kernel(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::Kernel { what: what.to_string(), why: why.to_string() }
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    // ENODEV
    matches!(error, rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) if code.get() == -19)
}
