//! ADD.

use crate::agent::Agent;
use crate::call::Call;
use crate::config::Config;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;
use crate::result::PrevResult;
use crate::{interface, notes, route, say};
use ipnet::IpNet;
use rpc::cni::AddRequest;
use serde_json::Value;

/// Attaches a pod. Returns the result.
pub(crate) fn add(call: &Call, config: &Config) -> Result<Value, Error> {
    match (&config.ipam, &config.prev_result) {
        (Some(ipam), _) => interface::add(call, config, ipam),
        (None, Some(before)) => chained(call, config, before),
        (None, None) => Err(Error::Config(
            "neither prevResult nor ipam is here: put dmvpn-cni after another plugin of a list, or say by ipam where \
             addresses come from"
                .to_owned(),
        )),
    }
}

/// The request for the agent.
pub(crate) fn request(call: &Call, config: &Config, addresses: &[IpNet]) -> AddRequest {
    AddRequest {
        attachment: Some(call.attachment(&config.name)),
        pod: call.pod(),
        addresses: addresses.iter().map(|a| a.addr().to_string()).collect(),
        annotations: config.annotations.clone().unwrap_or_default(),
        annotations_known: config.annotations.is_some(),
    }
}

/// After the cluster's plugin. The overlay is not the pod's only network, so nothing of ours keeps a pod from starting.
fn chained(call: &Call, config: &Config, before: &PrevResult) -> Result<Value, Error> {
    let namespace = Namespace::open(&call.netns)?;
    let request = request(call, config, &before.addresses(&call.interface));
    let mtu = match Agent::new(&config.run_dir).add(request.clone()) {
        Ok(reply) => {
            notes::forget(&config.run_dir, &call.attachment(&config.name));
            reply.mtu
        }
        Err(away) => {
            say(format_args!("{away}. {} starts nevertheless; the agent is told later", who(call)));
            if let Err(error) = notes::attached(&config.run_dir, request, &away.to_string()) {
                say(format_args!("the agent can't be left a note: {error}"));
            }
            0
        }
    };
    let limited = (mtu > 0).then(|| limit(&namespace, &call.interface, mtu)).transpose();
    let limited = limited.unwrap_or_else(|error| {
        say(format_args!("{error}. {} starts nevertheless; the node tells it of the path's MTU", who(call)));
        None
    });
    Ok(before.pass_on(config.version, limited.filter(|limited| *limited).map(|_| mtu)))
}

fn limit(namespace: &Namespace, interface: &str, mtu: u32) -> Result<bool, Error> {
    namespace.within(|| {
        let kernel = Kernel::open()?;
        match kernel.link(interface)? {
            Some(link) => route::limit(&kernel, &link, mtu),
            None => Ok(false),
        }
    })
}

fn who(call: &Call) -> String {
    match call.pod() {
        Some(pod) => format!("pod {}/{}", pod.namespace, pod.name),
        None => format!("container {}", call.container),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call, config};
    use serde_json::json;

    #[test]
    fn alone_and_without_addresses_it_says_what_is_missing() {
        let config = config::for_tests("ADD", json!({"cniVersion": "1.1.0", "name": "n"})).unwrap();
        let error = add(&call::for_tests("ADD"), &config).unwrap_err();
        assert_eq!(error.code(), 7);
        assert!(error.to_string().contains("prevResult"), "{error}");
    }

    #[test]
    fn a_container_that_does_not_exist_is_code_3() {
        let input = json!({"cniVersion": "1.1.0", "name": "n", "prevResult": {"cniVersion": "1.1.0"}});
        let config = config::for_tests("ADD", input).unwrap();
        assert_eq!(add(&call::for_tests("ADD"), &config).unwrap_err().code(), 3);
    }

    #[test]
    fn the_agent_is_told_what_the_runtime_knows() {
        let config = config::for_tests("ADD", json!({"cniVersion": "1.1.0", "name": "n"})).unwrap();
        let request = request(&call::for_tests("ADD"), &config, &["10.1.0.5/16".parse().unwrap()]);
        assert_eq!((request.addresses, request.annotations_known), (vec!["10.1.0.5".to_owned()], false));
        assert_eq!(request.pod.unwrap().name, "web-0");
    }
}
