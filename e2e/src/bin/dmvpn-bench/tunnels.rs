//! The tunnels that are compared: how each is built, started between the two namespaces, and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A tunnel by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// No tunnel.
    Veth,
    /// VXLAN in the kernel.
    Vxlan,
    /// `e2e/bench/stick.c`.
    Stick,
    /// wireguard-go.
    WireguardGo,
    /// This project, in the clear.
    KubeDmvpn,
    /// This project, by AES-128-GCM.
    KubeDmvpnEncrypted,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Vxlan => "vxlan",
            Self::Stick => "stick",
            Self::WireguardGo => "wireguard-go",
            Self::KubeDmvpn => "kube-dmvpn",
            Self::KubeDmvpnEncrypted => "encrypted",
        }
    }

    const fn is_ours(self) -> bool {
        matches!(self, Self::KubeDmvpn | Self::KubeDmvpnEncrypted)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Veth => "raw veth, no tunnel",
            Self::Vxlan => "vxlan in the kernel",
            Self::Stick => "the measuring stick (a ceiling, no product)",
            Self::WireguardGo => "wireguard-go",
            Self::KubeDmvpn => "**kube-dmvpn**, GRE in UDP, clear",
            Self::KubeDmvpnEncrypted => "**kube-dmvpn**, GRE in ESP in UDP, AES-128-GCM",
        }
    }
}

/// Programs that were built or found.
pub(crate) struct Built {
    stick: PathBuf,
    wireguard: PathBuf,
    agent: PathBuf,
}

/// Builds what the chosen tunnels need.
pub(crate) fn prepare(kinds: &[Kind]) -> Result<Built, String> {
    let target = std::env::current_exe()
        .map_err(|e| e.to_string())?
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    let built = Built {
        stick: target.join("bench/stick"),
        wireguard: target.join("bench/wireguard"),
        agent: target.join("dmvpn-agent"),
    };
    fs::create_dir_all(target.join("bench")).map_err(|e| e.to_string())?;
    if kinds.contains(&Kind::Stick) {
        run(Command::new("cc")
            .args(["-O3", "-o"])
            .arg(&built.stick)
            .args(["e2e/bench/stick.c", "-lpthread"]))?;
    }
    if kinds.contains(&Kind::WireguardGo) {
        run(Command::new("go")
            .args(["build", "-o"])
            .arg(&built.wireguard)
            .arg("golang.zx2c4.com/wireguard")
            .current_dir("e2e/bench/peers"))
        .map_err(|e| {
            format!("{e}\nwireguard-go needs Go and wireguard-tools (apt-get install golang wireguard-tools)")
        })?;
    }
    if kinds.iter().any(|k| k.is_ours()) && !built.agent.exists() {
        return Err(format!("{} is missing: run `make bench`", built.agent.display()));
    }
    Ok(built)
}

/// Two namespaces with one veth between them. Gone when dropped.
pub(crate) struct Ends {
    near: String,
    far: String,
}

const NEAR: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";
const MTU: &str = "1420";

impl Ends {
    pub(crate) fn new() -> Result<Self, String> {
        let prefix = lab::leaks::prefix();
        let ends = Self { near: format!("{prefix}bench-near"), far: format!("{prefix}bench-far") };
        ip(&format!("netns add {}", ends.near))?;
        ip(&format!("netns add {}", ends.far))?;
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", ends.near, ends.far))?;
        for (ns, address) in [(&ends.near, NEAR), (&ends.far, FAR)] {
            ip(&format!("-n {ns} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {ns} link set eth0 up"))?;
            ip(&format!("-n {ns} link set lo up"))?;
        }
        Ok(ends)
    }

    pub(crate) fn near(&self, command: &[&str]) -> Command {
        within(&self.near, command)
    }

    pub(crate) fn far(&self, command: &[&str]) -> Command {
        within(&self.far, command)
    }

    fn both(&self) -> [(&str, &'static str, &'static str, u8); 2] {
        [(self.near.as_str(), NEAR, FAR, 1), (self.far.as_str(), FAR, NEAR, 2)]
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.near));
        let _ = ip(&format!("netns del {}", self.far));
    }
}

/// A running tunnel; stopped, and its interfaces removed, when dropped.
pub(crate) struct Tunnel {
    /// The far end's address inside.
    pub(crate) far: String,
    processes: Vec<Child>,
    measured: Vec<u32>,
    interfaces: Vec<(String, String)>,
    folders: Vec<PathBuf>,
}

impl Tunnel {
    /// The processes whose CPU counts as the tunnel's.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.measured.clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for p in &self.processes {
            let _ = Command::new("kill").args(["-TERM", &p.id().to_string()]).status();
        }
        for p in &mut self.processes {
            for _ in 0..250 {
                if matches!(p.try_wait(), Ok(Some(_))) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = p.kill();
            let _ = p.wait();
        }
        // A datapath outlives an agent that had to be killed.
        let ours: Vec<u32> = self.processes.iter().map(Child::id).collect();
        for pid in self.measured.iter().filter(|pid| !ours.contains(pid)) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        for (ns, interface) in &self.interfaces {
            let _ =
                Command::new("ip").args(["-n", ns, "link", "del", interface]).stderr(Stdio::null()).status();
        }
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Starts a tunnel between the two ends.
pub(crate) fn start(kind: Kind, ends: &Ends, built: &Built) -> Result<Tunnel, String> {
    let mut t = Tunnel {
        far: "10.99.0.2".into(),
        processes: vec![],
        measured: vec![],
        interfaces: vec![],
        folders: vec![],
    };
    match kind {
        Kind::Veth => t.far = FAR.into(),
        Kind::Vxlan => vxlan(ends, &mut t)?,
        Kind::Stick => stick(ends, built, &mut t)?,
        Kind::WireguardGo => wireguard(ends, built, &mut t)?,
        Kind::KubeDmvpn => kube_dmvpn(ends, built, &mut t, CLEAR)?,
        Kind::KubeDmvpnEncrypted => kube_dmvpn(ends, built, &mut t, ENCRYPTED)?,
    }
    Ok(t)
}

fn vxlan(ends: &Ends, t: &mut Tunnel) -> Result<(), String> {
    for (ns, local, remote, n) in ends.both() {
        ip(&format!("-n {ns} link add vx0 type vxlan id 7 local {local} remote {remote} dstport 4789"))?;
        t.interfaces.push((ns.into(), "vx0".into()));
        address(ns, "vx0", n)?;
    }
    Ok(())
}

fn stick(ends: &Ends, built: &Built, t: &mut Tunnel) -> Result<(), String> {
    let program = built.stick.to_string_lossy();
    for (ns, local, remote, _) in ends.both() {
        spawn(t, within(ns, &[&program, "stick0", local, remote, "5555"]))?;
    }
    for (ns, _, _, n) in ends.both() {
        await_link(ns, "stick0")?;
        ip(&format!("-n {ns} link set stick0 gso_max_size 60000 gso_max_segs 44"))?;
        address(ns, "stick0", n)?;
        ip(&format!("-n {ns} neigh replace 10.99.0.{} lladdr 02:00:00:00:00:01 dev stick0", 3 - n))?;
    }
    Ok(())
}

fn wireguard(ends: &Ends, built: &Built, t: &mut Tunnel) -> Result<(), String> {
    let program = built.wireguard.to_string_lossy();
    let folder = scratch(t)?;
    let mut public = Vec::new();
    for n in 1..=2 {
        let key = output(Command::new("wg").arg("genkey"))?;
        fs::write(folder.join(format!("key{n}")), &key).map_err(|e| e.to_string())?;
        public.push(output(
            Command::new("sh")
                .arg("-c")
                .arg(format!("wg pubkey < {}", folder.join(format!("key{n}")).display())),
        )?);
    }
    for (ns, _, remote, n) in ends.both() {
        let name = format!("wgb{}{n}", std::process::id() % 10_000);
        spawn(t, within(ns, &[&program, "-f", &name]))?;
        await_link(ns, &name)?;
        t.interfaces.push((ns.into(), name.clone()));
        let key = folder.join(format!("key{n}"));
        run(&mut within(
            ns,
            &[
                "wg",
                "set",
                &name,
                "private-key",
                &key.to_string_lossy(),
                "listen-port",
                "51820",
                "peer",
                public[usize::from(2 - n)].trim(),
                "allowed-ips",
                "0.0.0.0/0",
                "endpoint",
                &format!("{remote}:51820"),
            ],
        ))?;
        address(ns, &name, n)?;
    }
    Ok(())
}

/// `security` of a manifest that says so in as many words.
const CLEAR: &str = "{mode: None}";
/// AES-128-GCM, and a key that both know: how the peers prove who they are does not show in what is measured.
const ENCRYPTED: &str =
    "{mode: Encrypted, esp: [aes128gcm16], authentication: {preSharedKey: {secret: bench-psk}}}";

fn kube_dmvpn(ends: &Ends, built: &Built, t: &mut Tunnel, security: &str) -> Result<(), String> {
    let folder = scratch(t)?;
    for (ns, local, _, n) in ends.both() {
        let node = folder.join(n.to_string());
        fs::create_dir_all(node.join("manifests")).map_err(|e| e.to_string())?;
        fs::write(node.join("manifests/dmvpn.yaml"), manifest(n, local, security))
            .map_err(|e| e.to_string())?;
        let agent = built.agent.to_string_lossy();
        let dir = |d: &str| node.join(d).to_string_lossy().into_owned();
        let (manifests, run_dir, state) = (dir("manifests"), dir("run"), dir("state"));
        let name = format!("bench-{n}");
        spawn(
            t,
            within(
                ns,
                &[
                    &agent,
                    "--manifests",
                    &manifests,
                    "--node",
                    &name,
                    "--run-dir",
                    &run_dir,
                    "--state-dir",
                    &state,
                    "--metrics",
                    "off",
                ],
            ),
        )?;
        t.interfaces.push((ns.into(), "dmvpn0".into()));
    }
    for (ns, ..) in ends.both() {
        await_link(ns, "dmvpn0")?;
    }
    let datapaths =
        output(Command::new("pgrep").args(["-f", &format!("dmvpn-datapath.*{}", folder.display())]))?;
    t.measured.extend(datapaths.lines().filter_map(|l| l.trim().parse::<u32>().ok()));
    Ok(())
}

fn manifest(n: u8, local: &str, security: &str) -> String {
    let (kind, hubs) = match n {
        2 => ("DmvpnHub", String::new()),
        _ => ("DmvpnSpoke", format!("  hubs:\n  - {{address: {FAR}, tunnelAddress: 10.99.0.2}}\n")),
    };
    format!(
        "apiVersion: kube-dmvpn.io/v1alpha1\nkind: {kind}\nmetadata: {{name: bench-{n}}}\nspec:\n{hubs}  tunnel: {{network: 10.99.0.0/24, addresses: 10.99.0.{n}/32, phase: 3, mtu: {MTU}}}\n  underlay: {{address: {local}}}\n  security: {security}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: bench-psk}}\nstringData: {{psk: bench-only-0123456789abcdef}}\n"
    )
}

fn address(ns: &str, interface: &str, n: u8) -> Result<(), String> {
    ip(&format!("-n {ns} addr add 10.99.0.{n}/24 dev {interface}"))?;
    ip(&format!("-n {ns} link set {interface} mtu {MTU} up"))
}

fn scratch(t: &mut Tunnel) -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("dmvpn-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    t.folders.push(folder.clone());
    Ok(folder)
}

fn spawn(t: &mut Tunnel, mut command: Command) -> Result<(), String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    t.measured.push(child.id());
    t.processes.push(child);
    Ok(())
}

fn within(ns: &str, command: &[&str]) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", ns]).args(command);
    c
}

fn await_link(ns: &str, name: &str) -> Result<(), String> {
    for _ in 0..100 {
        if Command::new("ip")
            .args(["-n", ns, "link", "show", name])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("interface {name} did not appear in {ns}"))
}

fn ip(arguments: &str) -> Result<(), String> {
    run(Command::new("ip").args(arguments.split(' ')))
}

fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}
