//! Agents on nodes: started as a user starts them, asked by their API, stopped, killed, started again.

mod ask;

pub use ask::Ask;

use crate::error::{Error, Result};
use crate::keys::{self, Key};
use crate::manifest::Manifest;
use crate::security::Proof;
use crate::topology::{Lab, Node};
use crate::wait;
use identity::pki::{Claims, Made};
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An agent on a node, running or not. Its process ends with the lab.
pub struct Agent {
    node: Node,
    name: String,
    directory: PathBuf,
    process: Mutex<Option<Child>>,
    /// Datapaths that took over from the one before.
    successors: Mutex<Vec<Child>>,
    arguments: Vec<String>,
    given: Mutex<Given>,
}

/// The credentials it was given.
enum Given {
    Nothing,
    /// A certificate that says this.
    For(Claims),
    /// By the story.
    ByHand,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGTERM: it deregisters, and stops the datapath it started.
    Orderly,
    /// SIGKILL: the datapath goes on.
    Kill,
}

impl Agent {
    /// Starts an agent with a manifest on a node, under the node's name.
    pub fn start(lab: &Lab, node: &Node, manifest: &Manifest) -> Result<Self> {
        let agent = Self::prepare(lab, node, &[])?;
        agent.apply(manifest)?;
        agent.launch()?;
        Ok(agent)
    }

    /// An agent that is not started yet, with further arguments.
    pub fn prepare(lab: &Lab, node: &Node, arguments: &[&str]) -> Result<Self> {
        Self::prepare_as(lab, node, node.name(), arguments)
    }

    /// The same under another name than the node's: a replacement of the machine of that name.
    pub fn prepare_as(lab: &Lab, node: &Node, name: &str, arguments: &[&str]) -> Result<Self> {
        let directory = node.directory()?;
        for folder in ["manifests", "run", "state"] {
            let path = directory.join(folder);
            fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        }
        let folder = directory.clone();
        lab.keys().add_source(move || exported_keys(&folder));
        let (log, shown) = (directory.join("agent.log"), node.name().to_owned());
        let ask = Ask::new(name, &directory.join("run/agent.sock"));
        lab.on_failure(move |folder| {
            print_tail(&shown, &log);
            print_drops(&ask);
            let _ = fs::copy(&log, folder.join(format!("{shown}.log")));
        });
        Ok(Self {
            node: node.clone(),
            name: name.to_owned(),
            directory,
            process: Mutex::new(None),
            successors: Mutex::default(),
            given: Mutex::new(Given::Nothing),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        })
    }

    /// Where it runs.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Its name, by which pinned addresses and the like know it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder it reads.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    /// The folder of its sockets.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The folder of what survives a restart.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Gives it this manifest, and with it the credentials that the manifest speaks of. Those that it has already stay as
    /// they are as long as they say the same.
    pub fn apply(&self, manifest: &Manifest) -> Result {
        if manifest.proof() == Proof::Certificates {
            let claims = manifest.claims(&self.name);
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            let keep = match &*given {
                Given::Nothing => false,
                Given::For(before) => *before == claims,
                Given::ByHand => true,
            };
            if !keep {
                let pki = self.node.pki()?;
                self.write_manifest("credentials.yaml", &pki.file(&pki.node(&claims)?, None))?;
                *given = Given::For(claims);
            }
        }
        self.write_manifest("lab.yaml", &manifest.text())
    }

    /// Gives it these credentials, whatever its manifest says, and a revocation list to judge others by.
    pub fn give(&self, made: &Made, revocation_list: Option<&str>) -> Result {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Given::ByHand;
        self.write_manifest("credentials.yaml", &self.node.pki()?.file(made, revocation_list))
    }

    /// Resident memory of the agent and its datapath, in octets.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let datapaths = self.datapaths().into_iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        let resident = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default().to_owned();
            line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        self.pid().into_iter().chain(datapaths).map(resident).sum()
    }

    /// Puts a file into its folder, whole at once, as an editor does. An agent that runs takes it up.
    pub fn write_manifest(&self, file: &str, text: &str) -> Result {
        let path = self.manifests().join(file);
        let draft = self.manifests().join(format!(".{file}"));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(Error::io(format!("write {}", path.display())))
    }

    /// Starts the process.
    pub fn launch(&self) -> Result {
        let log = self.directory.join("agent.log");
        let failed = || Error::io(format!("open {}", log.display()));
        let out = File::options().create(true).append(true).open(&log).map_err(failed())?;
        let err = out.try_clone().map_err(failed())?;
        let mut command = Command::new(binary("dmvpn-agent")?);
        command
            .args(["--manifests".as_ref(), self.manifests().as_os_str()])
            .args(["--node", &self.name])
            .args(["--run-dir".as_ref(), self.run_directory().as_os_str()])
            .args(["--state-dir".as_ref(), self.state_directory().as_os_str()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        let child = self.node.spawn(&mut command)?;
        *self.lock() = Some(child);
        Ok(())
    }

    /// Ends the process and waits for it.
    pub fn end(&self, how: End) -> Result<ExitStatus> {
        let mut child =
            self.lock().take().ok_or_else(|| Error::other(format!("{} does not run", self.name)))?;
        let signal = match how {
            End::Orderly => Signal::TERM,
            End::Kill => Signal::KILL,
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::other("a process without a number"))?;
        kill_process(pid, signal).map_err(Error::sys(format!("end the agent of {}", self.name)))?;
        wait::until(&format!("the agent of {} to end", self.name), wait::PATIENCE, || {
            match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it still runs".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    /// The agent's process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// Numbers of the datapath's processes on this node.
    #[must_use]
    pub fn datapaths(&self) -> Vec<Pid> {
        let is_datapath = |pid: &Pid| {
            let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
            "dmvpn-datapath".starts_with(name.trim()) && !name.trim().is_empty()
        };
        self.node.namespace().processes().into_iter().filter(is_datapath).collect()
    }

    /// Kills the datapath, as a crash.
    pub fn kill_datapath(&self) -> Result {
        for pid in self.datapaths() {
            kill_process(pid, Signal::KILL).map_err(Error::sys("kill the datapath"))?;
        }
        Ok(())
    }

    /// Starts another datapath that takes over from the one that runs, as an upgrade does, and waits until that has ended.
    pub fn hand_over_datapath(&self) -> Result {
        let before = self.datapaths();
        let log = self.directory.join("successor.log");
        let out = File::create(&log).map_err(Error::io(format!("make {}", log.display())))?;
        let err = out.try_clone().map_err(Error::io(format!("open {}", log.display())))?;
        let mut command = Command::new(binary("dmvpn-datapath")?);
        command
            .args(["--socket".as_ref(), self.run_directory().join("datapath.sock").as_os_str()])
            .arg("--takeover")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child = self.node.spawn(&mut command)?;
        self.successors.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        wait::until(
            &format!("the datapath of {} to be followed by another", self.name),
            wait::PATIENCE,
            || {
                let now = self.datapaths();
                let followed = now.len() == 1 && now != before;
                let said = || fs::read_to_string(&log).unwrap_or_default();
                if followed { Ok(()) } else { Err(format!("{before:?}, now {now:?}: {}", said())) }
            },
        )
    }

    /// Runs `dmvpnctl` against this agent and returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket();
        let mut command = Command::new(binary("dmvpnctl")?);
        command.arg("--socket").arg(&socket).args(arguments);
        let output = crate::netns::run(&mut command)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Asks the agent.
    #[must_use]
    pub fn ask(&self) -> Ask {
        Ask::new(&self.name, &self.socket())
    }

    /// What it wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default()
    }

    /// Waits until its log says this.
    pub fn wait_log(&self, text: &str, patience: Duration) -> Result {
        wait::until(&format!("{:?} in the log of {}", text, self.name), patience, || {
            if self.log().contains(text) { Ok(()) } else { Err("it is not there") }
        })
    }

    fn socket(&self) -> PathBuf {
        self.run_directory().join("agent.sock")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The lab kills what is left in the namespace; this reaps our own child, so that no zombie stays.
        let successors = std::mem::take(&mut *self.successors.lock().unwrap_or_else(PoisonError::into_inner));
        for mut child in self.lock().take().into_iter().chain(successors) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of this project: from `DMVPN_BIN_DIR`, or from where cargo put it for this test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let beside = env::current_exe().map_err(Error::io("find our own program"))?;
    let folders = env::var_os("DMVPN_BIN_DIR").map(PathBuf::from).into_iter();
    // A test is in target/PROFILE/deps, a program in target/PROFILE.
    let folders = folders.chain(beside.ancestors().skip(1).take(2).map(Path::to_owned));
    let found = folders.map(|f| f.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| {
        Error::other(format!("there is no {name}: build it (cargo build), or set DMVPN_BIN_DIR"))
    })
}

/// The keys of SAs that an agent has written, wherever below its folder.
pub(crate) fn exported_keys(folder: &Path) -> Vec<(u32, Key)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: fs::DirEntry| {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            exported_keys(&path)
        } else if entry.file_name() == "esp_sa" {
            keys::of_wireshark(&fs::read_to_string(&path).unwrap_or_default())
        } else {
            Vec::new()
        }
    };
    entries.flat_map(of_entry).collect()
}

/// Prints what a node dropped and why, if it still answers, for a story that failed.
fn print_drops(ask: &Ask) {
    let Ok(counters) = ask.counters() else { return };
    for (name, count) in counters.iter().filter(|(name, count)| name.starts_with("drop_") && **count > 0) {
        eprintln!("{name} {count}");
    }
}

/// Prints the end of a log, for a story that failed.
fn print_tail(name: &str, log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("---- last lines of {name}'s log");
    for line in &lines[lines.len().saturating_sub(60)..] {
        eprintln!("{line}");
    }
}
