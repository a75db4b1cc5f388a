//! Results: the one of the plugin before us, which is passed on as it is, and that of an interface of our own.

use crate::error::Error;
use crate::version::Version;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;

/// `prevResult`, whole, with what we need of it understood.
#[derive(Clone, Debug)]
pub(crate) struct PrevResult {
    raw: Value,
    known: Known,
}

/// A result as far as it matters here. The delegated plugin's is read as the same.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Known {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    pub(crate) ips: Vec<Ip>,
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Value,
}

#[derive(Clone, Debug, Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Ip {
    pub(crate) address: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    pub(crate) gw: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
    scope: Option<u8>,
}

impl Route {
    /// Of this destination, by this gateway.
    pub(crate) const fn new(dst: IpNet, gw: IpAddr) -> Self {
        Self { dst, gw: Some(gw), mtu: None, scope: None }
    }
}

/// `scope` of a route to what is on link.
const LINK: u8 = 253;

impl PrevResult {
    pub(crate) fn parse(raw: Value) -> Result<Self, Error> {
        let known = Known::parse(&raw).map_err(|e| Error::Decode(format!("prevResult: {e}")))?;
        Ok(Self { raw, known })
    }

    /// The addresses that interface `name` of the pod has.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpNet> {
        self.ips(name).map(|ip| ip.address).collect()
    }

    fn ips(&self, name: &str) -> impl Iterator<Item = &Ip> {
        self.known.ips.iter().filter(move |ip| {
            let interface = ip.interface.and_then(|index| self.known.interfaces.get(index));
            // Not said: some plugins list no interfaces.
            interface.is_none_or(|i| i.name == name && !i.sandbox.is_empty())
        })
    }

    /// Routes with an MTU.
    pub(crate) fn limited_routes(&self) -> impl Iterator<Item = (IpNet, u32)> {
        self.known.routes.iter().filter_map(|route| Some((route.dst, route.mtu?)))
    }

    /// Routes by a gateway of interface `name`.
    pub(crate) fn routes_by(&self, name: &str) -> impl Iterator<Item = &Route> {
        let gateways: Vec<IpAddr> = self.ips(name).filter_map(|ip| ip.gateway).collect();
        self.known.routes.iter().filter(move |route| route.gw.is_some_and(|gw| gateways.contains(&gw)))
    }

    /// The result to pass on. `mtu`: what routes were limited to; since 1.1.0 a result says so.
    //= cni-1.1.0#section-2: it MUST handle `prevResult` by either passing it through, or modifying it appropriately
    pub(crate) fn pass_on(&self, version: Version, mtu: Option<u32>) -> Value {
        let mut result = self.raw.clone();
        result["cniVersion"] = json!(version.as_str());
        let Some(mtu) = mtu.filter(|_| version.is_1_1()) else { return result };
        let routes = result.get_mut("routes").and_then(Value::as_array_mut);
        for (route, known) in routes.into_iter().flatten().zip(&self.known.routes) {
            if known.scope != Some(LINK) && known.mtu.is_none_or(|old| old == 0 || old > mtu) {
                route["mtu"] = json!(mtu);
            }
        }
        result
    }
}

impl Known {
    pub(crate) fn parse(raw: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(raw)
    }
}

/// An interface of our own, as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) host: String,
    pub(crate) host_mac: String,
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) sandbox: String,
    pub(crate) mtu: u32,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Value,
}

impl Made {
    /// The result, added to that of the plugins before us if there were any.
    pub(crate) fn result(&self, version: Version, before: Option<&PrevResult>) -> Value {
        let mut result = before.map_or_else(|| json!({}), |before| before.raw.clone());
        result["cniVersion"] = json!(version.as_str());
        let list = |key: &str| result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut interfaces, mut ips, mut routes) = (list("interfaces"), list("ips"), list("routes"));
        let ours = interfaces.len() + 1;
        interfaces.push(self.interface_json(version, &self.host, &self.host_mac, None));
        interfaces.push(self.interface_json(version, &self.name, &self.mac, Some(&self.sandbox)));
        ips.extend(self.ips.iter().map(|ip| ip.json(version, ours)));
        routes.extend(self.routes.iter().map(|route| json!({"dst": route.dst, "gw": route.gw})));
        result["interfaces"] = Value::Array(interfaces);
        result["ips"] = Value::Array(ips);
        result["routes"] = Value::Array(routes);
        if result.get("dns").is_none() {
            result["dns"] = if self.dns.is_null() { json!({}) } else { self.dns.clone() };
        }
        result
    }

    fn interface_json(&self, version: Version, name: &str, mac: &str, sandbox: Option<&str>) -> Value {
        let mut json = json!({"name": name, "mac": mac});
        if let Some(sandbox) = sandbox {
            json["sandbox"] = json!(sandbox);
        }
        if version.is_1_1() {
            json["mtu"] = json!(self.mtu);
        }
        json
    }
}

impl Ip {
    fn json(&self, version: Version, interface: usize) -> Value {
        let mut json = json!({"address": self.address, "interface": interface});
        if let Some(gateway) = self.gateway {
            json["gateway"] = json!(gateway);
        }
        // Since 1.0.0 it is told by the address alone.
        if version < Version::V1_0_0 {
            json["version"] = json!(if self.address.addr().is_ipv4() { "4" } else { "6" });
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/a", "x": 1}],
            "ips": [
                {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
                {"address": "10.9.9.9/32", "interface": 0}
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "scope": 253}, {"dst": "10.8.0.0/16", "mtu": 900}],
            "dns": {"nameservers": ["10.1.0.1"]},
            "unknown": {"kept": true}
        })
    }

    #[test]
    fn a_result_is_passed_on_as_it_came() {
        let result = PrevResult::parse(bridge()).unwrap().pass_on(Version::V1_1_0, None);
        assert_eq!(result, bridge());
    }

    #[test]
    fn a_lowered_mtu_is_told_for_routes_by_a_gateway_only_and_never_raised() {
        let result = PrevResult::parse(bridge()).unwrap().pass_on(Version::V1_1_0, Some(1400));
        assert_eq!(result["routes"][0]["mtu"], 1400);
        assert_eq!(result["routes"][1]["mtu"], Value::Null);
        assert_eq!(result["routes"][2]["mtu"], 900);
    }

    #[test]
    fn before_1_1_0_a_result_has_no_mtu() {
        let result = PrevResult::parse(bridge()).unwrap().pass_on(Version::V1_0_0, Some(1400));
        assert_eq!(result["routes"][0]["mtu"], Value::Null);
        assert_eq!(result["cniVersion"], "1.0.0");
    }

    #[test]
    fn the_pods_addresses_are_those_inside_it() {
        let result = PrevResult::parse(bridge()).unwrap();
        assert_eq!(result.addresses("eth0"), ["10.1.0.5/16".parse().unwrap()]);
        let bare = PrevResult::parse(json!({"ips": [{"address": "10.1.0.5/16"}]})).unwrap();
        assert_eq!(bare.addresses("eth0").len(), 1);
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let error = PrevResult::parse(json!({"ips": [{"address": "10.1.0.5"}]})).unwrap_err();
        assert_eq!(error.code(), 6);
    }

    fn made() -> Made {
        let known =
            Known::parse(&json!({"ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}]})).unwrap();
        Made {
            host: "dmv1".to_owned(),
            host_mac: "02:00:00:00:00:01".to_owned(),
            name: "eth0".to_owned(),
            mac: "02:00:00:00:00:02".to_owned(),
            sandbox: "/run/netns/a".to_owned(),
            mtu: 1400,
            routes: vec![Route::new("0.0.0.0/0".parse().unwrap(), "10.1.0.1".parse().unwrap())],
            ips: known.ips,
            dns: Value::Null,
        }
    }

    #[test]
    fn an_interface_of_our_own_is_told_in_the_version_that_was_asked_in() {
        let result = made().result(Version::V1_1_0, None);
        assert_eq!(
            result["ips"][0],
            json!({"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1})
        );
        assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/a");
        assert_eq!(result["interfaces"][1]["mtu"], 1400);
        let old = made().result(Version::V0_4_0, None);
        assert_eq!((&old["ips"][0]["version"], &old["interfaces"][1]["mtu"]), (&json!("4"), &Value::Null));
    }

    #[test]
    fn a_second_interface_is_added_to_the_result_of_the_first() {
        let before = PrevResult::parse(bridge()).unwrap();
        let result = made().result(Version::V1_1_0, Some(&before));
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 5);
        assert_eq!((&result["ips"][0]["interface"], &result["ips"][2]["interface"]), (&json!(2), &json!(4)));
        assert_eq!(result["dns"]["nameservers"][0], "10.1.0.1");
    }
}
