//! GC: forgets what no attachment needs any more.

use crate::agent::Agent;
use crate::call::{Call, Command};
use crate::config::Config;
use crate::error::Error;
use crate::{interface, ipam, say};
use rpc::cni::{Attachment, CollectRequest};

/// Removes as much as it can, and tells of everything that failed.
pub(crate) fn gc(call: &Call, config: &Config) -> Result<(), Error> {
    let mut errors = Vec::new();
    if let Some(valid) = &config.valid {
        let attachment = |(container, interface): &(String, String)| Attachment {
            network: config.name.clone(),
            container: container.clone(),
            interface: interface.clone(),
        };
        let valid: Vec<Attachment> = valid.iter().map(attachment).collect();
        if config.ipam.is_some() {
            errors.extend(interface::collect(&config.name, &valid));
        }
        let request = CollectRequest { network: config.name.clone(), valid };
        if let Err(away) = Agent::new(&config.run_dir).collect(request) {
            errors.push(Error::TryAgain(away.to_string()));
        }
    } else {
        say("cni.dev/valid-attachments is not said: nothing is removed, as nobody knows what is stale");
    }
    //= cni-1.1.0#section-2: Plugins MUST, additionally, forward any GC calls to delegated plugins
    if let Some(plugin) = &config.ipam {
        errors.extend(ipam::run(call, Command::Gc, config, plugin).err());
    }
    Error::all(errors)
}
