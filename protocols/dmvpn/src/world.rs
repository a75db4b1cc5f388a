//! What NHRP asks while it handles a message, answered from the route mirror and from claims.

use crate::config::Config;
use crate::hub::Hubs;
use crate::routes::Routes;
use claims::Policy;
use nhrp::{AnswerClaim, Environment, Refusal, RegistrationClaim, Route};
use std::net::IpAddr;

/// A look at the engine's state that NHRP may have while it is itself being changed.
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) policy: &'a Policy,
    pub(crate) routes: &'a Routes,
    pub(crate) hubs: &'a Hubs,
}

impl Environment for World<'_> {
    fn route(&self, destination: IpAddr) -> Route {
        self.routes.route(destination)
    }

    fn authorize_registration(&self, claim: &RegistrationClaim<'_>) -> Result<(), Refusal> {
        let wanted = claim.prefix.addr();
        if self.config.addresses.contains(&wanted) {
            return Err(Refusal(format!("{wanted} is this hub's own tunnel address")));
        }
        if self.config.static_peers.iter().any(|s| s.tunnel_address == wanted) {
            return Err(Refusal(format!("{wanted} is mapped by hand")));
        }
        self.policy.authorize_registration(claim.identity, claim.prefix).map_err(|e| Refusal(e.to_string()))
    }

    fn authorize_answer(&self, claim: &AnswerClaim<'_>) -> Result<(), Refusal> {
        // Our hubs are configured, not admitted: admission is about those who come to us.
        if self.hubs.has_address(claim.responder) {
            return Ok(());
        }
        self.policy
            .authorize_answer(claim.identity, claim.responder, claim.prefix)
            .map_err(|e| Refusal(e.to_string()))
    }
}
