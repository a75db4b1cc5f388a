//! One guest: booted on a TAP of the lab's Internet, told what to do by files in a folder it shares.

use super::strongswan::StrongSwan;
use crate::error::{Error, Result};
use crate::keys;
use crate::topology::{Lab, Node};
use crate::wait;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Booting takes three seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(90);
const COMMAND: Duration = Duration::from_secs(60);

/// A foreign router that has booted. Dropping it powers it off.
pub struct Guest {
    name: String,
    directory: PathBuf,
    process: Mutex<Child>,
    requests: Requests,
    port: String,
}

/// What a guest is configured with.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// Its address on the lab's Internet.
    pub address: String,
    /// Shell commands, run when `eth0` has its address.
    pub setup: String,
    /// FRR's configuration; empty: FRR is not started.
    pub frr: String,
    /// GRE is encrypted by this.
    pub ike: Option<StrongSwan>,
}

impl Guest {
    /// Boots a guest and waits until it is set up.
    pub fn boot(lab: &Lab, name: &str, configuration: &Configuration) -> Result<Self> {
        Self::boot_behind(lab, lab.internet(), name, configuration)
    }

    /// The same behind a router of the lab, such as a NAT.
    pub fn boot_behind(lab: &Lab, router: &Node, name: &str, configuration: &Configuration) -> Result<Self> {
        let guest = Self::begin(lab, router, name, configuration)?;
        guest.wait_ready()?;
        Ok(guest)
    }

    /// Boots several at once.
    pub fn boot_all(lab: &Lab, guests: &[(&str, Configuration)]) -> Result<Vec<Self>> {
        let begun = guests
            .iter()
            .map(|(name, c)| Self::begin(lab, lab.internet(), name, c))
            .collect::<Result<Vec<_>>>()?;
        begun.iter().try_for_each(Self::wait_ready)?;
        Ok(begun)
    }

    /// Starts the machine without waiting for it.
    fn begin(lab: &Lab, router: &Node, name: &str, configuration: &Configuration) -> Result<Self> {
        let cache = cache()?;
        let directory = lab.directory().join(name);
        let folder = |path: &str| {
            let path = directory.join(path);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display()))).map(|()| path)
        };
        let conf = folder("conf")?;
        folder("ctl")?;
        let uml = folder("uml")?;
        let write = |file: &str, text: &str| {
            let path = conf.join(file);
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(&path, text)).map_err(Error::io(format!("write {file} of {name}")))
        };
        write("hostname", name)?;
        write("setup.sh", &setup(configuration, router))?;
        write("frr.conf", &configuration.frr)?;
        let files = configuration.ike.as_ref().map(|ike| ike.files(&configuration.address));
        for (file, text) in files.into_iter().flatten() {
            write(&format!("swanctl/{file}"), &text)?;
        }

        let port = format!("t{name}");
        router.namespace().ip(&[
            &format!("tuntap add {port} mode tap"),
            &format!("link set {port} up"),
            &format!("route add {}/32 dev {port}", configuration.address),
        ])?;
        router.take_gateway(&port)?;
        let console = directory.join("console.log");
        let output = File::create(&console).map_err(Error::io(format!("make {}", console.display())))?;
        let memory = lab.memory();
        fs::create_dir_all(&memory).map_err(Error::io(format!("make {}", memory.display())))?;
        let mut command = Command::new(cache.join("uml/usr/bin/linux.uml"));
        command
            .env("LD_PRELOAD", cache.join("xstate.so"))
            .env("TMPDIR", &memory)
            .args(["mem=128M", "root=/dev/root", "rootfstype=hostfs", "ro", "init=/usr/local/sbin/rig-init"])
            .arg(format!("rootflags={}", cache.join("rootfs").display()))
            .arg(format!("rigdir={}", directory.display()))
            .arg(format!("umid={name}"))
            .arg(format!("uml_dir={}/", uml.display()))
            .args(["quiet", "panic=1", "con=null", "con0=null,fd:1", "ssl=null"])
            .arg(format!("vec0:transport=tap,ifname={port},depth=128,gro=0,mac={}", mac(name)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null());
        let process = router.spawn(&mut command)?;
        let (who, log) = (name.to_owned(), directory.clone());
        lab.on_failure(move |_| print_logs(&who, &log));
        if configuration.ike.is_some() {
            let ask = Requests::new(name, &directory);
            lab.keys().add_source(move || {
                // A guest that does not answer has ended.
                ask.attempt("ip xfrm state").map(|(_, said)| keys::of_xfrm(&said)).unwrap_or_default()
            });
        }
        Ok(Self {
            name: name.to_owned(),
            requests: Requests::new(name, &directory),
            directory,
            process: Mutex::new(process),
            port,
        })
    }

    fn wait_ready(&self) -> Result {
        wait::until(&format!("{} to boot", self.name), BOOT, || {
            if self.directory.join("ready").exists() {
                return Ok(());
            }
            let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match process.try_wait() {
                Ok(Some(status)) => Err(format!("the guest ended with {status}")),
                _ => Err("it boots".to_owned()),
            }
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of the lab's Internet it is attached to, for captures.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Runs a shell command in the guest and returns what it prints; an error if it fails.
    pub fn run(&self, command: &str) -> Result<String> {
        let (code, output) = self.attempt(command)?;
        if code == 0 {
            return Ok(output);
        }
        Err(Error::Command {
            line: format!("{}: {command}", self.name),
            status: format!("exit status: {code}"),
            stderr: output,
        })
    }

    /// Runs a shell command in the guest; its exit status and what it printed.
    pub fn attempt(&self, command: &str) -> Result<(i32, String)> {
        self.requests.attempt(command)
    }

    /// What strongSwan has logged.
    #[must_use]
    pub fn charon_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("charon.log")).unwrap_or_default()).into_owned()
    }

    /// Runs one of swanctl's commands.
    pub fn swanctl(&self, command: &str) -> Result<String> {
        self.run(&format!("STRONGSWAN_CONF=/mnt/conf/swanctl/strongswan.conf swanctl {command}"))
    }

    /// Runs one of FRR's show commands.
    pub fn show(&self, what: &str) -> Result<String> {
        self.run(&format!("vtysh -c 'show {what}'"))
    }

    /// Pings from an address of the guest; how many of `count` were answered.
    pub fn ping(&self, source: &str, to: &str, count: u32) -> Result<u32> {
        let (_, output) = self.attempt(&format!("ping -q -c {count} -i 0.2 -W 2 -I {source} {to}"))?;
        let received = output.split(", ").find_map(|part| part.strip_suffix(" received"));
        received.and_then(|n| n.parse().ok()).ok_or_else(|| Error::other(format!("{}: {output}", self.name)))
    }

    /// Pings until an answer comes.
    pub fn wait_ping(&self, source: &str, to: &str) -> Result {
        wait::until(&format!("{} to reach {to}", self.name), Duration::from_secs(60), || {
            match self.ping(source, to, 1) {
                Ok(0) => Err("no answer".to_owned()),
                Ok(_) => Ok(()),
                Err(e) => Err(e.to_string()),
            }
        })
    }
}

/// Asks a guest to run commands, by files.
struct Requests {
    name: String,
    folder: PathBuf,
}

impl Requests {
    fn new(name: &str, directory: &Path) -> Self {
        Self { name: name.to_owned(), folder: directory.join("ctl") }
    }

    fn attempt(&self, command: &str) -> Result<(i32, String)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = self.folder.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        let file = |extension: &str| base.with_extension(extension);
        fs::write(file("new"), command)
            .and_then(|()| fs::rename(file("new"), file("req")))
            .map_err(Error::io(format!("ask {}", self.name)))?;
        let code = wait::until(&format!("{} to run {command:?}", self.name), COMMAND, || {
            fs::read_to_string(file("rc")).map_err(|e| e.to_string())
        })?;
        let output = fs::read(file("out")).unwrap_or_default();
        Ok((code.trim().parse().unwrap_or(-1), String::from_utf8_lossy(&output).into_owned()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Its helper processes notice that the kernel is gone; the lab kills what does not.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// The image's folder; an error says how to make it.
pub(super) fn cache() -> Result<PathBuf> {
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/rig.sh");
    let said = crate::netns::run(Command::new(rig).arg("where"))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    if folder.join("complete").exists() {
        return Ok(folder);
    }
    Err(Error::other(format!("no image of the foreign routers in {}: run `make interop`", folder.display())))
}

/// The guest's setup script: the underlay first.
fn setup(configuration: &Configuration, router: &Node) -> String {
    let frr = if configuration.frr.is_empty() {
        ""
    } else {
        "
for daemon in mgmtd zebra staticd nhrpd bgpd; do
    /usr/lib/frr/$daemon -d -A 127.0.0.1 --log file:/var/log/frr/$daemon.log
done
vtysh -b"
    };
    format!(
        "ip link set vec0 name eth0
ethtool -K eth0 tso off gso off gro off tx off > /dev/null
ip addr add {address}/32 dev eth0
ip link set eth0 up
ip route add default via {gateway} dev eth0 onlink src {address}
modprobe ip_gre
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
{setup}{ike}{frr}
",
        gateway = router.gateway(true),
        ike = if configuration.ike.is_some() { StrongSwan::SETUP } else { "" },
        address = configuration.address,
        setup = configuration.setup,
    )
}

/// A locally administered address that differs between guests of a lab.
fn mac(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    format!("02:1f:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn print_logs(name: &str, directory: &Path) {
    for file in ["console.log", "setup.log", "charon.log"] {
        let text = fs::read(directory.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("---- last lines of {name}'s {file}");
        for line in &lines[lines.len().saturating_sub(25)..] {
            eprintln!("{line}");
        }
    }
}
