//! CHECK: is everything that ADD made still there? What others made is theirs to check.

use crate::agent::Agent;
use crate::call::Call;
use crate::config::Config;
use crate::error::Error;
use crate::kernel::{Kernel, Link};
use crate::namespace::Namespace;
use crate::result::PrevResult;
use crate::{interface, route, say};
use rpc::cni::CheckRequest;

/// Fails when something is not as it should be.
pub(crate) fn check(call: &Call, config: &Config) -> Result<(), Error> {
    let missing = || Error::Config("CHECK needs prevResult, what the ADD before it returned".to_owned());
    let before = config.prev_result.as_ref().ok_or_else(missing)?;
    let namespace = Namespace::open(&call.netns)?;
    let mut problems = match namespace.within(|| inside(call, config, before)) {
        Ok(problems) => problems,
        Err(error) => vec![error.to_string()],
    };
    let mut errors = Vec::new();
    if let Some(ipam) = &config.ipam {
        interface::check(call, config, ipam, &mut problems, &mut errors);
    }
    let addresses = before.addresses(&call.interface).iter().map(|a| a.addr().to_string()).collect();
    let request = CheckRequest { attachment: Some(call.attachment(&config.name)), addresses };
    match Agent::new(&config.run_dir).check(request) {
        Ok(reply) => {
            problems.extend(reply.problems);
            if !reply.known && config.ipam.is_some() {
                problems.push("the agent was never told of this attachment".to_owned());
            }
        }
        // The cluster's network does not need the agent.
        Err(away) if config.ipam.is_none() => say(format_args!("{away}. What only it knows was not checked")),
        Err(away) => errors.push(Error::TryAgain(away.to_string())),
    }
    if !problems.is_empty() {
        errors.insert(0, Error::Check(problems.join("; ")));
    }
    Error::all(errors)
}

/// What can be seen inside the pod.
fn inside(call: &Call, config: &Config, before: &PrevResult) -> Result<Vec<String>, Error> {
    let kernel = Kernel::open()?;
    let Some(link) = kernel.link(&call.interface)? else {
        return Ok(vec![format!("the pod has no interface {}", call.interface)]);
    };
    let mut problems = wrong_mtus(&kernel, &link, before)?;
    if config.ipam.is_some() {
        let there = kernel.addresses(&link)?;
        let wanted = before.addresses(&call.interface);
        problems.extend(
            wanted
                .iter()
                .filter(|a| !there.contains(&a.addr()))
                .map(|a| format!("{} has no address {a}", link.name)),
        );
        let routes = kernel.routes(&link)?;
        let missing = before.routes_by(&call.interface).filter(|r| route::mtu_of(&routes, r.dst).is_none());
        problems.extend(missing.map(|r| format!("{} is not routed by {}", r.dst, link.name)));
    }
    Ok(problems)
}

/// Routes that the result says are limited, and are not. A plugin after us may have removed one.
//= cni-1.1.0#section-2: The plugin must allow for a later chained plugin to have modified networking resources
fn wrong_mtus(kernel: &Kernel, link: &Link, before: &PrevResult) -> Result<Vec<String>, Error> {
    let routes = kernel.routes(link)?;
    let wrong = before.limited_routes().filter_map(|(destination, wanted)| {
        let there = route::mtu_of(&routes, destination)?;
        let is_more = there.is_none_or(|mtu| mtu > wanted);
        is_more.then(|| format!("the route to {destination} lets more than {wanted} octets through"))
    });
    Ok(wrong.collect())
}
