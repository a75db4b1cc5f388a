//! Network namespaces: made, entered by a thread, and removed with everything in them.

use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where iproute2 keeps named namespaces.
const NETNS_DIR: &str = "/run/netns";

/// A network namespace with a name that `ip netns` knows. Dropping it kills what runs in it and removes it.
pub struct Namespace {
    name: String,
    file: File,
    inode: u64,
    removed: AtomicBool,
}

impl Namespace {
    /// Makes a namespace with the loopback up, no router advertisements and no duplicate address detection (a lab's
    /// addresses are unique, and a story should not wait a second for each).
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let ns = Self::open(name)?;
        ns.sysctls(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/ping_group_range", "0 2147483647"),
        ])?;
        ns.ip(&["link set lo up"])?;
        Ok(ns)
    }

    fn open(name: &str) -> Result<Self> {
        let this = Self::adopt(name, Path::new(&format!("{NETNS_DIR}/{name}")))?;
        this.removed.store(false, Ordering::Relaxed);
        Ok(this)
    }

    /// A namespace that somebody else made and removes, such as a pod's. `ip netns` does not know it.
    pub(crate) fn adopt(name: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
        let inode = file.metadata().map_err(Error::io(format!("stat {}", path.display())))?.ino();
        Ok(Self { name: name.to_owned(), file, inode, removed: AtomicBool::new(true) })
    }

    /// The name, as `ip netns exec` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread inside the namespace. Sockets opened, programs started and `/proc/sys/net` read there
    /// belong to the namespace, also after the thread has ended.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                self.join()?;
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn join(&self) -> Result {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(Error::sys(format!("enter namespace {}", self.name)))
    }

    /// Another handle to the same namespace, for a thread that outlives the borrow; it removes nothing.
    pub fn handle(&self) -> Result<Handle> {
        let file = self.file.try_clone().map_err(Error::io("duplicate a namespace's descriptor"))?;
        Ok(Handle { name: self.name.clone(), file })
    }

    /// Runs lines of `ip` in one go: `["link set lo up", "addr add 10.0.0.1/24 dev eth0"]`.
    pub fn ip(&self, lines: &[&str]) -> Result {
        self.feed(Command::new("ip").args(["-batch", "-"]), &lines.join("\n")).map(drop)
    }

    /// Output of one `ip` command with `-json`, parsed.
    pub fn ip_json(&self, line: &str) -> Result<serde_json::Value> {
        let output = self.feed(Command::new("ip").arg("-json").args(line.split_whitespace()), "")?;
        if output.stdout.is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| Error::other(format!("ip {line}: {e}")))
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) -> Result {
        self.feed(Command::new("nft").args(["-f", "-"]), rules).map(drop)
    }

    /// Runs a program in the namespace with `input` on its standard input; a failure says in which.
    fn feed(&self, command: &mut Command, input: &str) -> Result<Output> {
        self.enter(|| feed(command, input))?.map_err(|error| match error {
            Error::Command { line, status, stderr } => {
                Error::Command { line: format!("{}: {line}", self.name), status, stderr }
            }
            other => other,
        })
    }

    /// Writes a kernel setting, by its path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result {
        self.sysctls(&[(key, value)])
    }

    /// Writes several.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{key}");
                fs::write(&path, value).map_err(Error::io(format!("write {value} to {path}")))?;
            }
            Ok(())
        })?
    }

    /// Lets the kernel handle each flow that this interface receives on one CPU, as network cards do. A veth would use
    /// that of whoever sends: once the scheduler moves a busy sender, its next packet may overtake the last ones, which is
    /// reordering that no network did.
    pub(crate) fn keep_order(&self, interface: &str) -> Result {
        // Only for `ip netns exec` /sys shows this namespace's interfaces.
        let queues = format!("/sys/class/net/{interface}/queues/rx-*/rps_cpus");
        let each = format!("for queue in {queues}; do echo {} > $queue || exit 1; done", all_cpus());
        run(Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", &each])).map(drop)
    }

    /// Runs a program in the namespace to its end; an error if it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.enter(|| run(Command::new(program).args(args)))?
    }

    /// Starts a program in the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let line = line_of(command);
        self.enter(|| command.spawn())?.map_err(Error::io(format!("start `{line}`")))
    }

    /// The processes whose main thread lives in the namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let own = rustix::process::getpid();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
            .filter(|pid| *pid != own)
            .filter(|pid| {
                let link = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
                fs::metadata(link).is_ok_and(|m| m.ino() == self.inode)
            })
            .collect()
    }

    /// Kills what runs in the namespace and waits until it is gone, so that nothing writes files afterwards.
    pub fn kill_processes(&self) {
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > give_up {
                return;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills what runs in it and removes it; once is enough.
    pub fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.kill_processes();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A namespace to enter, without the duty to remove it.
pub struct Handle {
    name: String,
    file: File,
}

impl Handle {
    /// Moves the calling thread into the namespace, for good.
    pub fn join(&self) -> Result {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(Error::sys(format!("enter namespace {}", self.name)))
    }
}

/// Names of the namespaces that begin with `prefix`.
#[must_use]
pub fn named(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(PathBuf::from(NETNS_DIR)) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.starts_with(prefix))
        .collect()
}

/// Kills what runs in a namespace left by a run that was itself killed, and removes it.
pub fn remove_stale(name: &str) {
    // Dropping does both.
    let _ = Namespace::open(name);
}

/// Runs a program to its end; an error if it fails.
pub fn run(command: &mut Command) -> Result<Output> {
    let line = line_of(command);
    let output = command.stdin(Stdio::null()).output().map_err(Error::io(format!("run `{line}`")))?;
    check(line, output)
}

/// As `/sys` takes a set of CPUs: hexadecimal, 32 to a word, the highest first.
fn all_cpus() -> String {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let word = |first: usize| (first..cpus.min(first + 32)).fold(0u32, |word, cpu| word | 1 << (cpu - first));
    let words: Vec<String> = (0..cpus).step_by(32).map(|first| format!("{:08x}", word(first))).collect();
    words.iter().rev().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Runs a program with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<Output> {
    let line = format!("{} <<< {input:?}", line_of(command));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io(format!("run `{line}`")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stopped reading says why on stderr, which is the better message.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(format!("run `{line}`")))?;
    check(line, output)
}

fn check(line: String, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Command { line, status: output.status.to_string(), stderr })
}

fn line_of(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}
