//! Routes: those we install, and how any route is read.

use super::{Error, Kernel, is_gone, refused};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Route protocol of shortcuts; the number that others know as "nhrp".
pub const NHRP: u8 = 191;
/// Route protocol of BGP.
pub const BGP: u8 = 186;
/// Route protocol of `routing.static` and of protected prefixes.
pub const STATIC: u8 = 193;

/// Route protocol of routes to gateways of this cluster.
pub const GATEWAY: u8 = 194;

/// Route protocol of the route to the API server.
pub const SERVER: u8 = 195;

/// Metric of the route to the API server: nothing is better.
pub const SERVER_METRIC: u32 = 1;
/// Metric of shortcuts: better than any other of the same prefix.
pub const SHORTCUT_METRIC: u32 = 5;
/// Metric of routes learnt by BGP, as routing daemons choose it.
pub const BGP_METRIC: u32 = 20;
/// Metric of `routing.static`.
pub const STATIC_METRIC: u32 = 30;
/// Metric of routes to gateways: a tunnel of this node's own is better.
pub const GATEWAY_METRIC: u32 = 40;
/// The worst metric there is.
pub const WORST_METRIC: u32 = u32::MAX;

/// The table that holds this node's own addresses.
pub const TABLE_LOCAL: u32 = 255;
/// The table that routing happens in.
pub const TABLE_MAIN: u32 = 254;

/// A route of ours, out by the tunnel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct TunnelRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Next hop, a tunnel address.
    pub via: IpAddr,
    /// Route protocol.
    pub protocol: u8,
    /// Metric; lower is better.
    pub metric: u32,
}

/// A route of the kernel as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Table.
    pub table: u32,
    /// Route protocol.
    pub protocol: u8,
    /// Metric; lower is better.
    pub metric: u32,
    /// What it does with a packet.
    pub kind: Kind,
    /// Where to; several for a multipath route, none when `kind` is not `Unicast`.
    pub hops: Vec<Hop>,
    /// The address that this node's own packets get, where the route says it.
    pub source: Option<IpAddr>,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends it on.
    Unicast,
    /// It is for this node.
    Local,
    /// Drops it: unreachable, blackhole, prohibit.
    Nowhere,
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface.
    pub interface: u32,
    /// Gateway; `None`: on link.
    pub gateway: Option<IpAddr>,
}

/// How the API server is reached: as some other route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub hop: Hop,
    /// [`KernelRoute::source`].
    pub source: Option<IpAddr>,
}

impl KernelRoute {
    /// The way that it is, or the first of several; `None`: it leads nowhere, or to this node.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.hops.first().map(|hop| Way { hop: *hop, source: self.source })
    }

    /// Is it one that [`Kernel::protect`] makes?
    #[must_use]
    pub fn protects(&self) -> bool {
        self.protocol == STATIC
            && self.metric == WORST_METRIC
            && self.kind == Kind::Nowhere
            && self.table == TABLE_MAIN
    }

    /// Is it one that [`Kernel::add_gateway_route`] makes?
    #[must_use]
    pub fn is_by_gateway(&self) -> bool {
        self.protocol == GATEWAY && self.metric == GATEWAY_METRIC && self.table == TABLE_MAIN
    }

    /// Is it one that [`Kernel::add_server_route`] makes?
    #[must_use]
    pub fn is_to_server(&self) -> bool {
        self.protocol == SERVER && self.metric == SERVER_METRIC && self.table == TABLE_MAIN
    }
}

impl Kernel {
    /// Adds a route by the tunnel interface, or replaces the one of the same prefix and metric.
    pub async fn add_route(&self, index: u32, route: &TunnelRoute) -> Result<(), Error> {
        let message = tunnel_message(index, route)?;
        let what = format!("route {} via {}", route.prefix, route.via);
        self.handle.route().add(message).replace().execute().await.map_err(|e| refused(what, e))
    }

    /// Removes a route by the tunnel interface; it may be gone already.
    pub async fn remove_route(&self, index: u32, route: &TunnelRoute) -> Result<(), Error> {
        let message = tunnel_message(index, route)?;
        self.delete_route(&format!("remove route {} via {}", route.prefix, route.via), message).await
    }

    /// Makes packets for `prefix` unreachable unless a better route says otherwise.
    pub async fn protect(&self, prefix: IpNet) -> Result<(), Error> {
        let request = self.handle.route().add(protected_message(prefix)?).replace();
        request.execute().await.map_err(|e| refused(format!("unreachable {prefix}"), e))
    }

    /// Undoes [`Kernel::protect`].
    pub async fn unprotect(&self, prefix: IpNet) -> Result<(), Error> {
        self.delete_route(&format!("remove unreachable {prefix}"), protected_message(prefix)?).await
    }

    /// The prefixes that [`Kernel::protect`] made unreachable, this process's and others'.
    pub async fn protected(&self) -> Result<Vec<IpNet>, Error> {
        let routes = self.routes().await?;
        Ok(routes.into_iter().filter(KernelRoute::protects).map(|r| r.prefix).collect())
    }

    /// Routes a prefix to a node on one of this node's links, in place of the gateway before.
    pub async fn add_gateway_route(&self, prefix: IpNet, via: IpAddr) -> Result<(), Error> {
        let request = self.handle.route().add(gateway_message(prefix, via)?).replace();
        request.execute().await.map_err(|e| refused(format!("route {prefix} via {via}"), e))
    }

    /// Undoes [`Kernel::add_gateway_route`].
    pub async fn remove_gateway_route(&self, prefix: IpNet, via: IpAddr) -> Result<(), Error> {
        self.delete_route(&format!("remove route {prefix} via {via}"), gateway_message(prefix, via)?).await
    }

    /// What [`Kernel::add_gateway_route`] made, this process's and others'.
    pub async fn gateway_routes(&self) -> Result<Vec<(IpNet, IpAddr)>, Error> {
        let routes = self.routes().await?;
        let ours = routes.iter().filter(|route| route.is_by_gateway());
        Ok(ours.filter_map(|route| Some((route.prefix, route.hops.first()?.gateway?))).collect())
    }

    /// Routes one address this way, in place of the one before.
    pub async fn add_server_route(&self, address: IpAddr, way: &Way) -> Result<(), Error> {
        let request = self.handle.route().add(server_message(address, way)?).replace();
        request.execute().await.map_err(|e| refused(format!("route to {address}"), e))
    }

    /// Undoes [`Kernel::add_server_route`].
    pub async fn remove_server_route(&self, address: IpAddr, way: &Way) -> Result<(), Error> {
        self.delete_route(&format!("remove route to {address}"), server_message(address, way)?).await
    }

    /// What [`Kernel::add_server_route`] made, this process's and others'.
    pub async fn server_routes(&self) -> Result<Vec<(IpAddr, Way)>, Error> {
        let routes = self.routes().await?;
        let ours = routes.iter().filter(|route| route.is_to_server());
        Ok(ours.filter_map(|route| Some((route.prefix.addr(), route.way()?))).collect())
    }

    /// The routes of one protocol by the interface.
    pub async fn tunnel_routes(&self, index: u32, protocol: u8) -> Result<Vec<TunnelRoute>, Error> {
        let routes = self.routes().await?;
        let ours = routes.iter().filter(|r| r.protocol == protocol && r.table == TABLE_MAIN);
        Ok(ours
            .filter_map(|r| match r.hops.as_slice() {
                [Hop { interface, gateway: Some(via) }] if *interface == index => {
                    Some(TunnelRoute { prefix: r.prefix, via: *via, protocol, metric: r.metric })
                }
                _ => None,
            })
            .collect())
    }

    /// Every route of the tables main and local, of both IP versions.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>, Error> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut routes = Vec::new();
        for query in [v4, v6] {
            let messages = self.collect("routes", |k| k.route().get(query).execute()).await?;
            routes.extend(messages.iter().filter_map(parse));
        }
        Ok(routes)
    }

    async fn delete_route(&self, what: &str, message: RouteMessage) -> Result<(), Error> {
        match self.handle.route().del(message).execute().await {
            Err(e) if !is_gone(&e) => Err(refused(what, e)),
            _ => Ok(()),
        }
    }
}

/// Reads a route of the tables main or local; others, caches and multicast are not looked at.
#[must_use]
pub fn parse(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => Kind::Unicast,
        RouteType::Local => Kind::Local,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Kind::Nowhere,
        _ => return None,
    };
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut table, mut metric, mut interface) = (u32::from(header.table), 0, None);
    let (mut gateway, mut source) = (None, None);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => destination = address(a)?,
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::Oif(i) => interface = Some(*i),
            RouteAttribute::Gateway(a) => gateway = address(a),
            RouteAttribute::Via(RouteVia::Inet6(a)) => gateway = Some(IpAddr::V6(*a)),
            RouteAttribute::PrefSource(a) => source = address(a),
            RouteAttribute::MultiPath(list) => hops.extend(list.iter().map(|hop| Hop {
                interface: hop.interface_index,
                gateway: hop.attributes.iter().find_map(|a| match a {
                    RouteAttribute::Gateway(a) => address(a),
                    RouteAttribute::Via(RouteVia::Inet6(a)) => Some(IpAddr::V6(*a)),
                    _ => None,
                }),
            })),
            _ => {}
        }
    }
    if ![TABLE_MAIN, TABLE_LOCAL].contains(&table) {
        return None;
    }
    if let (Kind::Unicast, Some(interface)) = (kind, interface) {
        hops.push(Hop { interface, gateway });
    }
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(KernelRoute { prefix, table, protocol: header.protocol.into(), metric, kind, hops, source })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn tunnel_message(index: u32, route: &TunnelRoute) -> Result<RouteMessage, Error> {
    Ok(RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.prefix.network(), route.prefix.prefix_len())
        .map_err(|e| Error::Malformed(e.to_string()))?
        .gateway(route.via)
        .map_err(|e| Error::Malformed(e.to_string()))?
        .output_interface(index)
        .protocol(RouteProtocol::from(route.protocol))
        .priority(route.metric)
        .build())
}

fn gateway_message(prefix: IpNet, via: IpAddr) -> Result<RouteMessage, Error> {
    Ok(RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(prefix.network(), prefix.prefix_len())
        .map_err(|e| Error::Malformed(e.to_string()))?
        .gateway(via)
        .map_err(|e| Error::Malformed(e.to_string()))?
        .protocol(RouteProtocol::from(GATEWAY))
        .priority(GATEWAY_METRIC)
        .build())
}

fn server_message(address: IpAddr, Way { hop, source }: &Way) -> Result<RouteMessage, Error> {
    let mut message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(address, IpNet::from(address).prefix_len())
        .map_err(|e| Error::Malformed(e.to_string()))?
        .output_interface(hop.interface)
        .protocol(RouteProtocol::from(SERVER))
        .priority(SERVER_METRIC);
    match hop.gateway {
        // Where the route that this is taken from found its gateway, this one does.
        Some(gateway) => {
            message = message.gateway(gateway).map_err(|e| Error::Malformed(e.to_string()))?;
            message = message.onlink();
        }
        None => message = message.scope(RouteScope::Link),
    }
    if let Some(source) = source {
        message = message.pref_source(*source).map_err(|e| Error::Malformed(e.to_string()))?;
    }
    Ok(message.build())
}

fn protected_message(prefix: IpNet) -> Result<RouteMessage, Error> {
    Ok(RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(prefix.network(), prefix.prefix_len())
        .map_err(|e| Error::Malformed(e.to_string()))?
        .protocol(RouteProtocol::from(STATIC))
        .kind(RouteType::Unreachable)
        .table_id(u32::from(RouteHeader::RT_TABLE_MAIN))
        .priority(WORST_METRIC)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_is_read_back_the_same() {
        for (prefix, via) in [("10.1.0.0/16", "10.200.0.1"), ("fd00:1::/48", "fd00::1")] {
            let route = TunnelRoute {
                prefix: prefix.parse().unwrap(),
                via: via.parse().unwrap(),
                protocol: NHRP,
                metric: SHORTCUT_METRIC,
            };
            let read = parse(&tunnel_message(7, &route).unwrap()).unwrap();
            assert_eq!((read.prefix, read.protocol, read.metric), (route.prefix, NHRP, SHORTCUT_METRIC));
            assert_eq!(read.hops, [Hop { interface: 7, gateway: Some(route.via) }]);
        }
    }

    #[test]
    fn a_protected_prefix_is_recognised_as_ours() {
        let read = parse(&protected_message("10.0.0.0/8".parse().unwrap()).unwrap()).unwrap();
        assert_eq!((read.kind, read.metric, read.protocol), (Kind::Nowhere, WORST_METRIC, STATIC));
        assert!(read.hops.is_empty());
    }

    #[test]
    fn the_route_to_the_server_is_recognised_as_ours() {
        for (gateway, source) in [("192.0.2.1", "192.0.2.7"), ("fe80::1", "192.0.2.7"), ("", "")] {
            let hop = Hop { interface: 3, gateway: gateway.parse().ok() };
            let way = Way { hop, source: source.parse().ok() };
            let read = parse(&server_message("10.96.0.1".parse().unwrap(), &way).unwrap()).unwrap();
            assert!(read.is_to_server());
            assert_eq!((read.prefix.to_string().as_str(), read.way()), ("10.96.0.1/32", Some(way)));
        }
    }

    #[test]
    fn a_route_of_another_table_is_not_ours_to_judge() {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().table_id(1000).output_interface(3).build();
        assert_eq!(parse(&message), None);
    }
}
