//! Two spokes at a distance from each other and from a hub, with a load between their hosts: where the stories begin that
//! count what is lost.
//!
//! The direct path has a round trip of 20 ms, that by the hub 60 ms, each with 5 ms of jitter on the spokes' links.

use crate::error::{Error, Result};
use crate::network::{Plan, Site, start_and_join};
use crate::relay::Shape;
use crate::topology::{Lab, Uplink};
use crate::traffic::Flow;
use crate::wait::{self, PATIENCE};
use std::time::Duration;

/// Packets a second, each way.
pub const RATE: u32 = 5000;

const MS: Duration = Duration::from_millis(1);

/// The hub and the spokes.
pub struct Distant {
    /// Carries what has no direct path.
    pub hub: Site,
    /// Spoke 1.
    pub a: Site,
    /// Spoke 2.
    pub b: Site,
}

impl Distant {
    /// Starts them; the spokes are not connected directly yet.
    pub fn start(lab: &Lab, hub: Plan, spoke: impl Fn(u8) -> Plan) -> Result<Self> {
        let hub = hub.by(Uplink::delay_ms(10)).start(lab)?;
        let near = |n| spoke(n).by(Self::near());
        let spokes = start_and_join(lab, &[&hub], vec![near(1), near(2)])?;
        let Ok([a, b]) = <[Site; 2]>::try_from(spokes) else { unreachable!("two spokes") };
        Ok(Self { hub, a, b })
    }

    /// How a spoke is attached.
    #[must_use]
    pub fn near() -> Uplink {
        Uplink::relayed(Shape::delay(5 * MS).jitter(5 * MS))
    }

    /// The load between the hosts.
    pub fn flows(&self) -> Result<[Flow; 2]> {
        let (a, b) = ((&self.a.host, &*self.a.host_address), (&self.b.host, &*self.b.host_address));
        Ok([Flow::start(a, b, 7001, RATE, 200)?, Flow::start(b, a, 7002, RATE, 200)?])
    }

    /// Waits until both spokes send directly, or neither does.
    pub fn wait_direct(&self, direct: bool) -> Result {
        self.wait_direct_for(direct, PATIENCE)
    }

    /// The same with another patience.
    pub fn wait_direct_for(&self, direct: bool, patience: Duration) -> Result {
        wait::until(&format!("the hosts to be direct: {direct}"), patience, || {
            let now = (self.a.direct_to(&self.b)?, self.b.direct_to(&self.a)?);
            if now == (direct, direct) { Ok(()) } else { Err(Error::other(format!("{now:?}"))) }
        })
    }
}
