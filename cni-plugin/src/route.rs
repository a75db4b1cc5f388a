//! MTU of the routes inside a pod. Not that of its interface: the other end would go on sending packets that the
//! interface then drops without a word, and traffic that stays on the node would pay as well.

use crate::error::Error;
use crate::kernel::{Kernel, Link};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use std::net::IpAddr;

/// Limits every route that leads off the link to `mtu`. Says whether there was one to limit.
pub(crate) fn limit(kernel: &Kernel, link: &Link, mtu: u32) -> Result<bool, Error> {
    change(kernel, link, mtu, |route| limited(route, mtu))
}

/// Lifts the limit of those that have exactly this one.
pub(crate) fn lift(kernel: &Kernel, link: &Link, mtu: u32) -> Result<bool, Error> {
    change(kernel, link, mtu, |route| lifted(route, mtu))
}

/// The MTU of the route for this destination, when there is such a route.
pub(crate) fn mtu_of(routes: &[RouteMessage], destination: IpNet) -> Option<Option<u32>> {
    routes.iter().find(|route| prefix(route) == Some(destination)).map(mtu)
}

fn change(
    kernel: &Kernel,
    link: &Link,
    mtu: u32,
    changed: impl Fn(&RouteMessage) -> Option<RouteMessage>,
) -> Result<bool, Error> {
    let changed: Vec<RouteMessage> = kernel.routes(link)?.iter().filter_map(changed).collect();
    for route in &changed {
        kernel.put_route(route.clone(), &format!("MTU {mtu} of a route by {}", link.name))?;
    }
    Ok(!changed.is_empty())
}

fn limited(route: &RouteMessage, limit: u32) -> Option<RouteMessage> {
    (leads_away(route) && mtu(route).is_none_or(|old| old > limit)).then(|| with_mtu(route, Some(limit)))
}

fn lifted(route: &RouteMessage, limit: u32) -> Option<RouteMessage> {
    (leads_away(route) && mtu(route) == Some(limit)).then(|| with_mtu(route, None))
}

/// By a gateway, or to everywhere. Not what routers advertise: the kernel keeps those itself.
fn leads_away(route: &RouteMessage) -> bool {
    let by_gateway =
        route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
    route.header.kind == RouteType::Unicast
        && route.header.protocol != RouteProtocol::Ra
        && (by_gateway || route.header.destination_prefix_length == 0)
}

fn mtu(route: &RouteMessage) -> Option<u32> {
    metrics(route).iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

fn metrics(route: &RouteMessage) -> &[RouteMetric] {
    route
        .attributes
        .iter()
        .find_map(|a| if let RouteAttribute::Metrics(m) = a { Some(m.as_slice()) } else { None })
        .unwrap_or_default()
}

fn with_mtu(route: &RouteMessage, mtu: Option<u32>) -> RouteMessage {
    let mut metrics: Vec<RouteMetric> =
        metrics(route).iter().filter(|m| !matches!(m, RouteMetric::Mtu(_))).cloned().collect();
    metrics.extend(mtu.map(RouteMetric::Mtu));
    let mut route = route.clone();
    // What the kernel tells and does not want to be told.
    route.attributes.retain(|a| !matches!(a, RouteAttribute::Metrics(_) | RouteAttribute::CacheInfo(_)));
    route.header.flags &= RouteFlags::Onlink;
    if !metrics.is_empty() {
        route.attributes.push(RouteAttribute::Metrics(metrics));
    }
    route
}

fn prefix(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let everywhere = || match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::from([0_u16; 8]),
        _ => IpAddr::from([0_u8; 4]),
    };
    let address = address.unwrap_or_else(everywhere);
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteCacheInfo;
    use rtnetlink::RouteMessageBuilder;
    use std::net::Ipv4Addr;

    fn by_gateway(prefix: [u8; 4], length: u8, metrics: &[RouteMetric]) -> RouteMessage {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::from(prefix), length)
            .gateway(Ipv4Addr::new(10, 1, 0, 1))
            .build();
        route.attributes.push(RouteAttribute::CacheInfo(RouteCacheInfo::parse(&[0; 32]).unwrap()));
        if !metrics.is_empty() {
            route.attributes.push(RouteAttribute::Metrics(metrics.to_vec()));
        }
        route
    }

    #[test]
    fn a_route_by_a_gateway_is_limited_and_keeps_its_other_metrics() {
        let route = by_gateway([10, 0, 0, 0], 8, &[RouteMetric::Mtu(1500), RouteMetric::Advmss(1000)]);
        let limited = limited(&route, 1400).unwrap();
        assert_eq!(metrics(&limited), [RouteMetric::Advmss(1000), RouteMetric::Mtu(1400)]);
        assert!(!limited.attributes.iter().any(|a| matches!(a, RouteAttribute::CacheInfo(_))));
    }

    #[test]
    fn a_smaller_mtu_stays() {
        assert_eq!(limited(&by_gateway([10, 0, 0, 0], 8, &[RouteMetric::Mtu(1300)]), 1400), None);
    }

    #[test]
    fn what_is_on_link_stays_unless_everything_is() {
        let mut on_link = by_gateway([10, 1, 0, 0], 16, &[]);
        on_link.attributes.retain(|a| !matches!(a, RouteAttribute::Gateway(_)));
        assert_eq!(limited(&on_link, 1400), None);
        on_link.header.destination_prefix_length = 0;
        assert!(limited(&on_link, 1400).is_some());
    }

    #[test]
    fn a_limit_is_lifted_only_where_it_is_ours() {
        let ours = limited(&by_gateway([10, 0, 0, 0], 8, &[]), 1400).unwrap();
        assert_eq!(metrics(&lifted(&ours, 1400).unwrap()), []);
        assert_eq!(lifted(&by_gateway([10, 0, 0, 0], 8, &[RouteMetric::Mtu(1300)]), 1400), None);
    }

    #[test]
    fn a_route_is_found_by_its_destination() {
        let routes = [by_gateway([0, 0, 0, 0], 0, &[RouteMetric::Mtu(1400)])];
        assert_eq!(mtu_of(&routes, "0.0.0.0/0".parse().unwrap()), Some(Some(1400)));
        assert_eq!(mtu_of(&routes, "10.0.0.0/8".parse().unwrap()), None);
    }
}
