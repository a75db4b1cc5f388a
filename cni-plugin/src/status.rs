//! STATUS: can ADD be served?

use crate::agent::Agent;
use crate::call::{Call, Command};
use crate::config::Config;
use crate::error::Error;
use crate::{ipam, say};

/// Chained, always: pods start without the agent, and the node must stay ready without it. An interface of its own needs
/// the agent, and the plugin that gives addresses.
//= cni-1.1.0#section-2: If a plugin relies on a delegated plugin (e.g. IPAM) to service `ADD` requests, it must also
//= execute a `STATUS` request to that plugin
pub(crate) fn status(call: &Call, config: &Config) -> Result<(), Error> {
    let asked = Agent::new(&config.run_dir).prepare();
    let Some(plugin) = &config.ipam else {
        if let Err(away) = asked {
            say(format_args!("{away}. Pods start nevertheless"));
        }
        return Ok(());
    };
    asked.map_err(|away| Error::NotAvailable(away.to_string()))?;
    ipam::run(call, Command::Status, config, plugin).map(drop)
}
