//! FRR's routing daemons beside our agent, on a node of the lab: from the image of the foreign routers, by `chroot`.

use super::guest;
use crate::error::{Error, Result};
use crate::netns;
use crate::topology::{Lab, Node};
use crate::wait::{self, PATIENCE};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Daemons that run on a node. They end with the lab at the latest.
pub struct Daemons {
    process: Mutex<Child>,
    root: PathBuf,
}

/// Writable folders of their own in a mount namespace of their own: the image stays as it is.
const SCRIPT: &str = "set -e
for path in run etc/frr var/log var/lib var/tmp; do mount -t tmpfs tmp \"$ROOT/$path\"; done
mount -t proc proc \"$ROOT/proc\"
cp \"$CONFIGURATION\" \"$ROOT/etc/frr/frr.conf\"
exec chroot \"$ROOT\" /bin/bash -c '
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    mkdir -p /run/frr /var/lib/frr /var/tmp/frr /var/log/frr
    echo service integrated-vtysh-config > /etc/frr/vtysh.conf
    chown -R frr:frr /run/frr /var/lib/frr /var/tmp/frr /var/log/frr /etc/frr
    for daemon in mgmtd zebra $DAEMONS; do /usr/lib/frr/$daemon -d -A 127.0.0.1; done
    vtysh -b
    echo ready > /run/ready
    exec sleep infinity'
";

impl Daemons {
    /// Starts zebra and these daemons on a node with a configuration.
    pub fn start(lab: &Lab, node: &Node, daemons: &[&str], configuration: &str) -> Result<Self> {
        let root = guest::cache()?.join("rootfs");
        let directory = node.directory()?;
        let (conf, log) = (directory.join("frr.conf"), directory.join("frr.log"));
        fs::write(&conf, configuration).map_err(Error::io(format!("write {}", conf.display())))?;
        let output = fs::File::create(&log).map_err(Error::io(format!("make {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::io("duplicate a descriptor"))?;
        let name = node.name().to_owned();
        lab.on_failure(move |_| {
            eprintln!("---- FRR on {name}: {}", fs::read_to_string(&log).unwrap_or_default());
        });
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
            .env("ROOT", &root)
            .env("CONFIGURATION", &conf)
            .env("DAEMONS", daemons.join(" "))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let started = Self { process: Mutex::new(node.spawn(&mut command)?), root };
        wait::until(&format!("FRR on {} to start", node.name()), PATIENCE, || started.run("cat /run/ready"))?;
        Ok(started)
    }

    /// Runs one of FRR's show commands.
    pub fn show(&self, what: &str) -> Result<String> {
        self.run(&format!("vtysh -c 'show {what}'"))
    }

    fn run(&self, shell: &str) -> Result<String> {
        let pid = self.process.lock().unwrap_or_else(PoisonError::into_inner).id().to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &pid, "--mount", "--net", "chroot"])
            .arg(&self.root)
            .args(["sh", "-c", shell]);
        let output = netns::run(&mut command)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}
