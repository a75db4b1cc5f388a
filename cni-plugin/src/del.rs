//! DEL: undoes what is there to be undone. What is gone already is no error, and neither is an agent that is away.

use crate::agent::Agent;
use crate::call::Call;
use crate::config::Config;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::namespace::Namespace;
use crate::{interface, notes, route, say};
use rpc::cni::DeleteRequest;

/// Detaches a pod.
//= cni-1.1.0#section-2: Plugins MUST accept multiple `DEL` calls for the same (`CNI_CONTAINERID`, `CNI_IFNAME`) pair
pub(crate) fn del(call: &Call, config: &Config) -> Result<(), Error> {
    let made = match &config.ipam {
        Some(ipam) => interface::del(call, config, ipam),
        None => Ok(()),
    };
    let mtu = tell(call, config);
    if config.ipam.is_none() && mtu > 0 {
        lift(call, mtu);
    }
    made
}

/// Tells the agent, or leaves word. Returns what routes were limited to.
fn tell(call: &Call, config: &Config) -> u32 {
    let attachment = call.attachment(&config.name);
    let request = DeleteRequest { attachment: Some(attachment.clone()) };
    match Agent::new(&config.run_dir).delete(request) {
        Ok(reply) => {
            notes::forget(&config.run_dir, &attachment);
            reply.mtu
        }
        Err(away) => {
            say(format_args!("{away}. The agent is told later"));
            if let Err(error) = notes::detached(&config.run_dir, attachment, &away.to_string()) {
                say(format_args!("the agent can't be left a note: {error}"));
            }
            0
        }
    }
}

fn lift(call: &Call, mtu: u32) {
    let Ok(namespace) = Namespace::open(&call.netns) else { return };
    let lifted = namespace.within(|| {
        let kernel = Kernel::open()?;
        match kernel.link(&call.interface)? {
            Some(link) => route::lift(&kernel, &link, mtu),
            None => Ok(false),
        }
    });
    if let Err(error) = lifted {
        say(format_args!("{error}; the interface is about to go anyway"));
    }
}
