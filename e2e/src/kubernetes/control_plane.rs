//! A control plane: etcd, the API server, and what acts on its objects, in a namespace of its own.

use super::pki::Pki;
use super::tool;
use crate::error::{Error, Result};
use crate::topology::{Lab, Node};
use crate::wait;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an API server may take to start while the machine builds something.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running control plane. Its processes end with the lab.
pub struct ControlPlane {
    node: Node,
    folder: PathBuf,
    pki: Pki,
    address: IpAddr,
    services: String,
    processes: Mutex<BTreeMap<String, Child>>,
}

impl ControlPlane {
    /// etcd, an API server and the controllers (service accounts, garbage collection) on the loopback of a namespace,
    /// without nodes: for what needs objects only.
    pub fn alone(lab: &Lab, name: &str) -> Result<Self> {
        let node = lab.node(name)?;
        let this = Self::prepare(lab, node, [127, 0, 0, 1].into(), "10.100.0.0/16")?;
        this.start_api()?;
        this.start_controllers()?;
        Ok(this)
    }

    /// A control plane at this address of a node, not started yet.
    pub(super) fn prepare(lab: &Lab, node: Node, address: IpAddr, services: &str) -> Result<Self> {
        let folder = node.directory()?;
        let pki = Pki::new(folder.join("pki"), node.name())?;
        let first_service = services.replace(".0.0/16", ".0.1");
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"];
        let names = names.map(str::to_owned).into_iter().chain([address.to_string(), first_service]);
        pki.server("apiserver", names.collect())?;
        let this =
            Self { node, folder, pki, address, services: services.to_owned(), processes: Mutex::default() };
        this.pki.kubeconfig("admin", "admin", Some("system:masters"), &this.url())?;
        let (name, logs) = (this.node.name().to_owned(), this.folder.clone());
        lab.on_failure(move |folder| {
            for log in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
                let kept = folder.join(format!("{name}-{log}.log"));
                let _ = fs::copy(logs.join(format!("{log}.log")), kept);
            }
        });
        Ok(this)
    }

    /// Starts etcd and the API server, and waits until it serves.
    pub fn start_api(&self) -> Result {
        let folder = self.folder.display();
        if !self.runs("etcd") {
            self.start(
                "etcd",
                &[
                    &format!("--data-dir={folder}/etcd"),
                    // A lab's disk forgets everything with the lab.
                    "--unsafe-no-fsync",
                    "--listen-client-urls=http://127.0.0.1:2379",
                    "--advertise-client-urls=http://127.0.0.1:2379",
                    "--listen-peer-urls=http://127.0.0.1:2380",
                ],
            )?;
        }
        let pki = |name: &str| self.pki.file(name).display().to_string();
        self.start(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                &format!("--advertise-address={}", self.advertised()),
                "--secure-port=6443",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-cluster-ip-range={}", self.services),
                &format!("--tls-cert-file={}", pki("apiserver.crt")),
                &format!("--tls-private-key-file={}", pki("apiserver.key")),
                &format!("--client-ca-file={}", pki("ca.crt")),
                &format!("--kubelet-client-certificate={}", pki("admin.crt")),
                &format!("--kubelet-client-key={}", pki("admin.key")),
                &format!("--service-account-key-file={}", pki("sa.pub")),
                &format!("--service-account-signing-key-file={}", pki("sa.key")),
            ],
        )?;
        wait::until("the API server", PATIENCE, || {
            if !self.runs("kube-apiserver") {
                let log = fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                return Ok(Err(Error::other(format!("the API server has ended: {last}"))));
            }
            std::thread::sleep(Duration::from_millis(200));
            self.kubectl(&["get", "--raw", "/readyz"]).map(|_| Ok(()))
        })?
    }

    /// Starts the controllers, and waits until pods can be made: each needs the service account that they make.
    pub fn start_controllers(&self) -> Result {
        let user = "system:kube-controller-manager";
        let kubeconfig = self.pki.kubeconfig("controllers", user, None, &self.url())?;
        self.start(
            "kube-controller-manager",
            &[
                &format!("--kubeconfig={}", kubeconfig.display()),
                &format!("--service-account-private-key-file={}", self.pki.file("sa.key").display()),
                &format!("--root-ca-file={}", self.pki.file("ca.crt").display()),
                "--use-service-account-credentials",
                "--leader-elect=false",
            ],
        )?;
        self.wait_for("the first service account", PATIENCE, &["serviceaccount", "default"], |_| Ok(()))
    }

    /// Starts the scheduler.
    pub fn start_scheduler(&self) -> Result {
        let kubeconfig = self.pki.kubeconfig("scheduler", "system:kube-scheduler", None, &self.url())?;
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        self.start("kube-scheduler", &[&kubeconfig, "--leader-elect=false"])
    }

    /// Kills one of its processes, such as `kube-apiserver`.
    pub fn kill(&self, program: &str) -> Result {
        let child = self.lock().remove(program);
        let mut child = child.ok_or_else(|| Error::other(format!("no {program} runs here")))?;
        child.kill().and_then(|()| child.wait()).map_err(Error::io(format!("kill {program}")))?;
        Ok(())
    }

    /// The namespace it runs in.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Its folder: logs, the database, certificates.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its certificates.
    #[must_use]
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The administrator's kubeconfig, good within the cluster's network.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.file("admin.kubeconfig")
    }

    /// The API server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:6443", self.address)
    }

    fn runs(&self, program: &str) -> bool {
        self.lock().get_mut(program).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The address under which the `kubernetes` Service is served: never a loopback one.
    fn advertised(&self) -> IpAddr {
        if self.address.is_loopback() { [192, 0, 2, 1].into() } else { self.address }
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Result {
        let log = self.folder.join(format!("{program}.log"));
        let failed = || Error::io(format!("open {}", log.display()));
        let out = File::options().create(true).append(true).open(&log).map_err(failed())?;
        let err = out.try_clone().map_err(failed())?;
        let mut command = Command::new(tool(program)?);
        command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = self.node.spawn(&mut command)?;
        self.lock().insert(program.to_owned(), child);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in self.lock().values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
