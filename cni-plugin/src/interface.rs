//! An interface of our own: a pair, one end in the pod, the other on the node, which routes. So the pod has no neighbour
//! but the node, and needs no bridge.

use crate::agent::Agent;
use crate::call::{Call, Command};
use crate::config::Config;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;
use crate::result::{Ip, Known, Made, Route};
use crate::{add, ipam, notes};
use ipnet::IpNet;
use rpc::cni::{AddRequest, Attachment, DeleteRequest, PrepareReply};
use serde_json::Value;
use std::net::IpAddr;

/// MTU where there is no tunnel yet: every tunnel takes that.
const SMALLEST: u32 = 1280;

/// Makes the interface. When anything fails, nothing is left of it.
pub(crate) fn add(call: &Call, config: &Config, ipam: &str) -> Result<Value, Error> {
    let namespace = Namespace::open(&call.netns)?;
    refuse_existing(call, &namespace)?;
    let prepared = Agent::new(&config.run_dir).prepare().map_err(|away| Error::TryAgain(away.to_string()))?;
    ipam::keep(config, &prepared.pod_networks);
    let made = ipam::run(call, Command::Add, config, ipam)
        .and_then(|given| attach(call, config, &namespace, &prepared, &given));
    match made {
        Ok(made) => Ok(made.result(config.version, config.prev_result.as_ref())),
        Err(error) => {
            undo(call, config, ipam);
            Err(error)
        }
    }
}

/// Removes the interface and gives its addresses back.
pub(crate) fn del(call: &Call, config: &Config, ipam: &str) -> Result<(), Error> {
    let gone = Kernel::open().and_then(|kernel| kernel.delete(&host_name(&call.attachment(&config.name))));
    let given_back = ipam::run(call, Command::Del, config, ipam);
    Error::all([gone.err(), given_back.err()].into_iter().flatten().collect())
}

/// What can be seen on the node.
pub(crate) fn check(
    call: &Call,
    config: &Config,
    ipam: &str,
    problems: &mut Vec<String>,
    errors: &mut Vec<Error>,
) {
    let host = host_name(&call.attachment(&config.name));
    match Kernel::open().and_then(|kernel| kernel.link(&host)) {
        Ok(Some(_)) => {}
        Ok(None) => problems.push(format!("the node has no interface {host}")),
        Err(error) => errors.push(error),
    }
    errors.extend(ipam::run(call, Command::Check, config, ipam).err());
}

/// Removes interfaces of attachments to `network` that are not valid any more. Returns what failed.
pub(crate) fn collect(network: &str, valid: &[Attachment]) -> Vec<Error> {
    let valid: Vec<String> = valid.iter().map(host_name).collect();
    let removed = || -> Result<Vec<Error>, Error> {
        let kernel = Kernel::open()?;
        let ours = alias(network);
        let stale = kernel.links()?.into_iter().filter(|l| l.alias == ours && !valid.contains(&l.name));
        Ok(stale.filter_map(|link| kernel.delete(&link.name).err()).collect())
    };
    removed().unwrap_or_else(|error| vec![error])
}

//= cni-1.1.0#section-2: If an interface of the requested name already exists in the container, the CNI plugin MUST
//= return with an error.
fn refuse_existing(call: &Call, namespace: &Namespace) -> Result<(), Error> {
    let existing = namespace.within(|| Kernel::open()?.link(&call.interface))?;
    match existing {
        Some(link) => {
            Err(Error::Environment(format!("CNI_IFNAME={} exists already in {}", link.name, call.netns)))
        }
        None => Ok(()),
    }
}

/// Tells the agent first: no packet of a pod that may not use the overlay shall slip through.
fn attach(
    call: &Call,
    config: &Config,
    namespace: &Namespace,
    prepared: &PrepareReply,
    given: &Value,
) -> Result<Made, Error> {
    let given = Known::parse(given).map_err(|e| Error::Decode(format!("what ipam answers: {e}")))?;
    let wanted = Wanted::plan(config, prepared, given)?;
    let addresses: Vec<IpNet> = wanted.ips.iter().map(|(ip, _)| ip.address).collect();
    let request: AddRequest = add::request(call, config, &addresses);
    Agent::new(&config.run_dir).add(request).map_err(|away| Error::TryAgain(away.to_string()))?;
    notes::forget(&config.run_dir, &call.attachment(&config.name));
    make(call, config, namespace, wanted)
}

/// What is to be made.
#[derive(Debug)]
struct Wanted {
    /// Addresses, each with its gateway: the node's address on the pair.
    ips: Vec<(Ip, IpAddr)>,
    routes: Vec<Route>,
    mtu: u32,
    dns: Value,
}

impl Wanted {
    fn plan(config: &Config, prepared: &PrepareReply, given: Known) -> Result<Self, Error> {
        let Known { ips, routes, dns, .. } = given;
        let mut with_gateway = Vec::new();
        for ip in ips {
            let gateway = ip.gateway.filter(|gateway| gateway.is_ipv4() == ip.address.addr().is_ipv4());
            let missing = || Error::Config(format!("ipam gives {} no gateway of its IP version", ip.address));
            with_gateway.push((ip.clone(), gateway.ok_or_else(missing)?));
        }
        if with_gateway.is_empty() {
            return Err(Error::Config("ipam gives no address".to_owned()));
        }
        let gateway_of = |dst: &IpNet| {
            let same = |(_, gateway): &&(Ip, IpAddr)| gateway.is_ipv4() == dst.addr().is_ipv4();
            with_gateway.iter().find(same).map(|(_, gateway)| *gateway)
        };
        let mut wanted: Vec<Route> = Vec::new();
        let is_default = |dst: &IpNet| dst.prefix_len() == 0;
        for route in routes.iter().filter(|r| !(config.overlay_only && is_default(&r.dst))) {
            wanted.extend(route.gw.or_else(|| gateway_of(&route.dst)).map(|gw| Route::new(route.dst, gw)));
        }
        let more: Vec<IpNet> = match config.overlay_only {
            true => prepared.networks.iter().filter_map(|text| text.parse().ok()).collect(),
            false => ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()).collect(),
        };
        for dst in more {
            if !wanted.iter().any(|route| route.dst == dst) {
                wanted.extend(gateway_of(&dst).map(|gw| Route::new(dst, gw)));
            }
        }
        let mtu = config.mtu.unwrap_or(if prepared.mtu == 0 { SMALLEST } else { prepared.mtu });
        Ok(Self { ips: with_gateway, routes: wanted, mtu, dns })
    }
}

fn make(call: &Call, config: &Config, namespace: &Namespace, wanted: Wanted) -> Result<Made, Error> {
    let Wanted { ips, routes, mtu, dns } = wanted;
    let (host, node) = (host_name(&call.attachment(&config.name)), Namespace::own()?);
    let kernel = Kernel::open()?;
    // Left by an ADD that was killed: the pod has nothing of it, as was seen.
    kernel.delete(&host)?;
    namespace.within(|| Kernel::open()?.add_pair(&call.interface, &host, node.file(), mtu))?;
    let missing =
        |name: &str| Error::Kernel { what: format!("interface {name}"), why: "it went away".to_owned() };
    let host_link = kernel.link(&host)?.ok_or_else(|| missing(&host))?;
    kernel.set_up(&host_link, Some(&alias(&config.name)))?;
    for (ip, gateway) in &ips {
        kernel.add_address(&host_link, IpNet::from(*gateway))?;
        kernel.add_route(&host_link, IpNet::from(ip.address.addr()), None)?;
    }
    let pod_link = namespace.within(|| {
        let kernel = Kernel::open()?;
        let link = kernel.link(&call.interface)?.ok_or_else(|| missing(&call.interface))?;
        kernel.set_up(&link, None)?;
        for (ip, gateway) in &ips {
            kernel.add_address(&link, IpNet::from(ip.address.addr()))?;
            kernel.add_route(&link, IpNet::from(*gateway), None)?;
        }
        for route in &routes {
            kernel.add_route(&link, route.dst, route.gw)?;
        }
        Ok(link)
    })?;
    Ok(Made {
        host,
        host_mac: host_link.mac,
        name: pod_link.name,
        mac: pod_link.mac,
        sandbox: call.netns.clone(),
        mtu,
        ips: ips.into_iter().map(|(ip, _)| ip).collect(),
        routes,
        dns,
    })
}

/// After a failure. What fails here fails again at the DEL that the runtime must send.
//= cni-1.1.0#section-4: If, on `ADD`, a delegated plugin fails, the "upper" plugin should execute again with `DEL`
fn undo(call: &Call, config: &Config, ipam: &str) {
    let attachment = call.attachment(&config.name);
    if let Err(error) = del(call, config, ipam) {
        crate::say(format_args!("while undoing what was done: {error}"));
    }
    let _ = Agent::new(&config.run_dir).delete(DeleteRequest { attachment: Some(attachment) });
}

/// The node's end of a pair: found again by whose it is.
fn host_name(attachment: &Attachment) -> String {
    let key = notes::key(attachment);
    format!("dmv{}", key.get(..11).unwrap_or(&key))
}

fn alias(network: &str) -> String {
    // The kernel takes 255 octets.
    format!("kube-dmvpn {network}").chars().take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use serde_json::json;

    fn plan(extra: Value, given: Value) -> Result<Wanted, Error> {
        let mut input = json!({"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "host-local"}});
        for (key, value) in extra.as_object().into_iter().flatten() {
            input[key] = value.clone();
        }
        let prepared = PrepareReply {
            mtu: 1400,
            networks: vec!["10.200.0.0/16".to_owned(), "10.0.0.0/8".to_owned(), "fd00::/8".to_owned()],
            pod_networks: Vec::new(),
        };
        Wanted::plan(&config::for_tests("ADD", input).unwrap(), &prepared, Known::parse(&given).unwrap())
    }

    fn given() -> Value {
        json!({"ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]})
    }

    fn destinations(wanted: &Wanted) -> Vec<String> {
        wanted.routes.iter().map(|route| route.dst.to_string()).collect()
    }

    #[test]
    fn as_the_pods_only_interface_it_has_the_default_route_once() {
        let wanted = plan(json!({}), given()).unwrap();
        assert_eq!((destinations(&wanted), wanted.mtu), (vec!["0.0.0.0/0".to_owned()], 1400));
        let without = json!({"ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]});
        assert_eq!(destinations(&plan(json!({}), without).unwrap()), ["0.0.0.0/0"]);
    }

    #[test]
    fn as_a_second_interface_it_has_the_overlays_networks_and_no_default_route() {
        let wanted = plan(json!({"overlayOnly": true}), given()).unwrap();
        assert_eq!(destinations(&wanted), ["10.200.0.0/16", "10.0.0.0/8"]);
    }

    #[test]
    fn an_mtu_that_is_said_wins() {
        assert_eq!(plan(json!({"mtu": 1300}), given()).unwrap().mtu, 1300);
    }

    #[test]
    fn both_ip_versions_have_their_gateway() {
        let two = json!({"ips": [
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::5/64", "gateway": "fd00:1::1"}
        ]});
        let wanted = plan(json!({}), two).unwrap();
        let gateways: Vec<_> = wanted.routes.iter().map(|r| r.gw.unwrap().to_string()).collect();
        assert_eq!(gateways, ["10.1.0.1", "fd00:1::1"]);
    }

    #[test]
    fn addresses_without_a_gateway_are_refused() {
        assert_eq!(plan(json!({}), json!({"ips": [{"address": "10.1.0.5/24"}]})).unwrap_err().code(), 7);
        assert_eq!(plan(json!({}), json!({})).unwrap_err().code(), 7);
    }

    #[test]
    fn the_nodes_end_has_a_name_the_kernel_takes_and_differs_by_attachment() {
        let one = Attachment { container: "a".to_owned(), ..Attachment::default() };
        let two = Attachment { container: "b".to_owned(), ..Attachment::default() };
        assert!(host_name(&one).len() < 16);
        assert_ne!(host_name(&one), host_name(&two));
    }
}
