//! The datapath's process: found by its socket, started when nobody listens there, stopped when asked; or only found,
//! where it has a container of its own.

use super::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a datapath that was just started may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for one that somebody else starts, before that is said.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the datapath is, and how to start one.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its socket.
    pub socket: PathBuf,
    /// Its binary; `None`: somebody else starts it, and again when it ends.
    pub binary: Option<PathBuf>,
    /// Where its log goes.
    pub log: PathBuf,
}

impl Process {
    /// Connects; starts the datapath first if nobody listens, or waits for whoever starts it.
    pub async fn connect(&self) -> Result<UnixStream, Error> {
        if let Ok(stream) = UnixStream::connect(&self.socket).await {
            return Ok(stream);
        }
        let patience = match &self.binary {
            Some(binary) => {
                self.start(binary)?;
                START_TIMEOUT
            }
            None => EXTERNAL_TIMEOUT,
        };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Stops the datapath that listens, if any, and waits until it is gone.
    pub async fn stop(&self) -> Result<(), Error> {
        let Ok(stream) = UnixStream::connect(&self.socket).await else { return Ok(()) };
        // The kernel says who listens; a file with a number could name a stranger.
        let pid = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?.pid;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(io::Error::from)?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while rustix::process::test_kill_process(pid).is_ok() && !is_zombie(pid) {
            if tokio::time::Instant::now() > deadline {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(io::Error::from)?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match std::fs::remove_file(&self.socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Starts it in a session and process group of its own, so that it outlives us and no terminal's signal meets it.
    fn start(&self, binary: &Path) -> Result<(), Error> {
        let log = self.open_log()?;
        let mut command = Command::new(binary);
        command
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .process_group(0)
            .current_dir("/");
        let mut child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot start {}: {e}", binary.display())))?;
        tracing::info!(pid = child.id(), binary = %binary.display(), "started the datapath");
        // While we live, collect it when it ends, so that no zombie stays.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    fn open_log(&self) -> io::Result<File> {
        if let Some(parent) = self.log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.log)
    }
}

/// Ended, and not collected yet by whoever started it?
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("stat");
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    // The state stands behind the name, which is in parentheses and may hold anything.
    text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
