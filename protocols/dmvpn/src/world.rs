//! What NHRP asks while it handles a message, answered from the route mirror and from claims.

use crate::config::Config;
use crate::gate::Gate;
use crate::hub::Hubs;
use crate::routes::Routes;
use claims::{Claimant, Policy};
use ipnet::IpNet;
use nhrp::{AnswerClaim, Environment, Refusal, RegistrationClaim, Route};
use packet::Path;
use std::net::IpAddr;

/// A look at the engine's state that NHRP may have while it is itself being changed.
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) policy: &'a Policy,
    pub(crate) routes: &'a Routes,
    pub(crate) hubs: &'a Hubs,
    /// `None`: a tunnel in clear.
    pub(crate) gate: Option<&'a Gate>,
}

impl Environment for World<'_> {
    fn route(&self, destination: IpAddr) -> Route {
        match self.routes.route(destination) {
            Route::OffOverlay { prefix } => match offered(self.config.behind.as_deref(), prefix, destination)
            {
                Some(prefix) => Route::OffOverlay { prefix },
                None => Route::Unreachable,
            },
            route => route,
        }
    }

    fn proven(&self, path: Path) -> Option<&str> {
        Some(self.gate?.identity(path)?.name.as_str())
    }

    fn authorize_registration(&self, claim: &RegistrationClaim<'_>) -> Result<(), Refusal> {
        let wanted = claim.prefix.addr();
        if self.config.addresses.contains(&wanted) {
            return Err(Refusal(format!("{wanted} is this hub's own tunnel address")));
        }
        if self.config.static_peers.iter().any(|s| s.tunnel_address == wanted) {
            return Err(Refusal(format!("{wanted} is mapped by hand")));
        }
        let who = match self.gate {
            None => Claimant::Asserted(claim.identity),
            Some(gate) => match gate.identity(claim.path) {
                Some(identity) => Claimant::Proven(identity),
                None => return Err(Refusal("nobody has proven to be there".to_owned())),
            },
        };
        self.policy.authorize_registration(who, claim.prefix).map_err(|e| Refusal(e.to_string()))
    }

    fn authorize_answer(&self, claim: &AnswerClaim<'_>) -> Result<(), Refusal> {
        // Our hubs are configured, not admitted: admission is about those who come to us.
        if self.hubs.has_address(claim.responder) {
            return Ok(());
        }
        // Straight from the responder, or passed on? Then it is held to its certificate when its path is proven.
        let sender = self.gate.and_then(|gate| gate.identity(claim.path));
        let who = match sender.filter(|sender| claim.identity == Some(&sender.name)) {
            Some(responder) => Claimant::Proven(responder),
            None => Claimant::Asserted(claim.identity),
        };
        self.policy.authorize_answer(who, claim.responder, claim.prefix).map_err(|e| Refusal(e.to_string()))
    }
}

/// The part of `prefix` around `destination` that we may answer for.
fn offered(behind: Option<&[IpNet]>, prefix: IpNet, destination: IpAddr) -> Option<IpNet> {
    let Some(behind) = behind else { return Some(prefix) };
    let widest = behind.iter().filter(|b| b.contains(&destination)).min_by_key(|b| b.prefix_len())?;
    Some(if widest.prefix_len() > prefix.prefix_len() { widest.trunc() } else { prefix })
}

#[cfg(test)]
mod tests {
    use super::offered;
    use ipnet::IpNet;

    fn offer(behind: Option<&[&str]>, route: &str, destination: &str) -> Option<IpNet> {
        let behind: Option<Vec<IpNet>> = behind.map(|list| list.iter().map(|p| p.parse().unwrap()).collect());
        offered(behind.as_deref(), route.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn only_what_is_said_to_lie_behind_us_is_answered_for() {
        let behind: Option<&[&str]> = Some(&["10.1.0.0/16"]);
        assert_eq!(offer(behind, "10.1.7.0/24", "10.1.7.9"), Some("10.1.7.0/24".parse().unwrap()));
        assert_eq!(offer(behind, "192.168.0.0/24", "192.168.0.9"), None);
        assert_eq!(offer(None, "192.168.0.0/24", "192.168.0.9"), Some("192.168.0.0/24".parse().unwrap()));
    }

    #[test]
    fn a_wider_route_is_answered_no_wider_than_what_lies_behind_us() {
        assert_eq!(
            offer(Some(&["10.1.0.0/16"]), "10.0.0.0/8", "10.1.7.9"),
            Some("10.1.0.0/16".parse().unwrap())
        );
    }
}
