//! Certificates from cert-manager, whose controller is not here: its Secrets and its CertificateRequests are, and what
//! its CA issuer does is done by openssl: names are copied into the certificate, address blocks are not.

use lab::kubernetes::lost_at_most;
use lab::kubernetes::overlay::{NAMESPACE, helm_upgrade};
use lab::kubernetes::{Chapters, Cluster, Overlay, Plan, Pod, PodPlan, Resource, two_clusters};
use lab::narration::ensure;
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Result, heavy_story};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const ISSUER: &str = "own-pki";
/// Packets a second.
const RATE: u32 = 1000;

#[test]
fn certificates_of_cert_manager_are_used_and_renewed() {
    heavy_story("kubernetes_cert_manager", |lab| {
        let scene = Scene::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("a_secret_that_cert_manager_wrote_is_used", || secret(&scene));
        chapters.tell("it_is_renewed_without_loss", || renewed(&scene));
        chapters.tell("an_issuer_signs_a_key_that_stays_on_its_node", || request(&scene));
        chapters.end()
    });
}

/// A hub's cluster with our own PKI, and a spoke's of one node with one made by openssl.
struct Scene {
    a: Cluster,
    hub: Cluster,
    client: Pod,
    web: Pod,
    folder: PathBuf,
}

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let [hub, a] = two_clusters(lab, Plan::new("a", 2).nodes(1))?;
        let overlay = Overlay::new(lab)?;
        let folder = overlay.folder().to_owned();
        overlay.install_all(lab, &[&hub, &a], &[])?;
        let client = a.run_pod(&PodPlan::new("client"))?;
        let web = hub.run_pod(&PodPlan::web("web", "hello"))?;
        let this = Self { a, hub, client, web, folder };
        this.shell(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=own pki' -days 30 \
             -keyout own.key -out own.crt -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null; cat root/ca.crt own.crt > both.crt",
        )?;
        // What the certificate does not say, the hub's admission does.
        let admission = json!([{
            "identity": "*.a.example.com", "tunnelAddresses": ["10.200.2.0/24"], "prefixes": ["10.2.0.0/16"],
        }]);
        this.hub.apply(&Resource::hub(this.hub.plan()).with(json!({"admission": admission})).text())?;
        for cluster in [&this.hub, &this.a] {
            let both = this.read("both.crt")?;
            cluster.apply(&secret_object("dmvpn-ca-trust", &json!({"ca.crt": both})))?;
        }
        this.hub.wait_overlay("dmvpnhub")?;
        Ok(this)
    }

    /// Runs a script where the certificates are.
    fn shell(&self, script: &str) -> Result<String> {
        let script = format!("set -e; cd {}; {script}", self.folder.display());
        self.a.output(Command::new("sh").args(["-c", &script]), "")
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.folder.join(file)).map_err(Error::io(format!("read {file}")))
    }

    /// Signs `request.pem` into `tls.crt` as cert-manager's CA issuer would: its names and its key, and no more.
    fn sign(&self) -> Result {
        self.shell(
            "openssl req -in request.pem -noout -text | grep -A1 'Subject Alternative Name' | tail -1 \
             | sed 's/IP Address/IP/g; s/^ */subjectAltName=/' > names; grep -q DNS:a-1.a.example.com names; \
             openssl x509 -req -in request.pem -CA own.crt -CAkey own.key -days 20 -extfile names -out tls.crt 2>/dev/null",
        )
        .map(drop)
    }

    /// The Secret that cert-manager makes of a Certificate.
    fn put_secret(&self) -> Result {
        let node = self.a.get(&["dmvpnnode", "a-1"])?;
        let address = node["spec"]["tunnels"][0]["addresses"][0].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default();
        self.shell(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout tls.key -out request.pem \
             -addext subjectAltName=DNS:a-1.a.example.com,IP:{address} 2>/dev/null"
        ))?;
        self.sign()?;
        let data = json!({
            "tls.crt": self.read("tls.crt")?, "tls.key": self.read("tls.key")?, "ca.crt": self.read("own.crt")?,
        });
        let mut object: Value =
            serde_json::from_str(&secret_object("node-a-1", &data)).map_err(Error::other)?;
        object["type"] = json!("kubernetes.io/tls");
        self.a.apply(&object.to_string()).map(drop)
    }

    /// Waits until the hub knows this node by the certificate that was made last, and pods talk.
    fn wait_used(&self) -> Result {
        let print = self.shell("openssl x509 -in tls.crt -noout -fingerprint -sha256")?;
        let print = print.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase();
        let hub = self.hub.machine(1)?.ask()?;
        wait::until("a session by the new certificate", 3 * PATIENCE, || {
            let sessions = hub.sessions()?;
            let used = sessions.iter().any(|s| s.certificate == print && s.verified && !s.sas.is_empty());
            ensure(used, &format!("{print} is of none of {sessions:?}"))
        })?;
        wait::until("the pods to talk", 3 * PATIENCE, || {
            Ping::times(3).expect(self.client.host(), &self.web.address)
        })
        .map(drop)
    }

    fn apply(&self, certificates: &Value) -> Result {
        let spoke = Resource::spoke(self.a.plan(), &self.hub.addresses())
            .with(json!({"security": {"authentication": {"certificates": certificates}}}));
        self.a.apply(&spoke.text()).map(drop)
    }
}

fn secret_object(name: &str, data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": data})
        .to_string()
}

fn secret(scene: &Scene) -> Result {
    helm_upgrade(&scene.a, &["secrets={dmvpn-ca-trust,node-a-1}", "certManager.enabled=true"])?;
    scene.apply(&json!({"issuedBy": "Secret", "secret": "node-{node}", "caSecret": null}))?;
    scene.a.wait_for("the node's address", PATIENCE, &["dmvpnnode", "a-1"], |node| {
        node["spec"]["tunnels"][0]["addresses"][0].as_str().map(|_| ()).ok_or_else(|| node.to_string())
    })?;
    scene.put_secret()?;
    scene.a.wait_overlay("dmvpnspoke")?;
    scene.wait_used()
}

fn flows(scene: &Scene) -> Result<[Flow; 2]> {
    let client = (scene.client.host(), scene.client.address.as_str());
    let web = (scene.web.host(), scene.web.address.as_str());
    Ok([Flow::start(client, web, 7001, RATE, 200)?, Flow::start(web, client, 7002, RATE, 200)?])
}

/// cert-manager writes a new key and certificate into the Secret.
fn renewed(scene: &Scene) -> Result {
    let flows = flows(scene)?;
    scene.put_secret()?;
    scene.wait_used()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    lost_at_most(&flows.map(Flow::stop), 0)
}

/// The kind, as cert-manager 1.x defines it, as far as it is used.
fn kind() -> Value {
    let text = || json!({"type": "string"});
    let octets = || json!({"type": "string", "format": "byte"});
    let reference = json!({"type": "object", "required": ["name"], "properties": {
        "name": text(), "kind": text(), "group": text()}});
    let spec = json!({"type": "object", "required": ["issuerRef", "request"], "properties": {
        "request": octets(), "issuerRef": reference, "duration": text(), "isCA": {"type": "boolean"},
        "usages": {"type": "array", "items": {"type": "string", "enum":
            ["digital signature", "key encipherment", "server auth", "client auth", "ipsec end system", "ipsec tunnel"]}}}});
    let condition = json!({"type": "object", "required": ["status", "type"], "properties": {
        "type": text(), "status": text(), "reason": text(), "message": text(), "lastTransitionTime": text()}});
    let status = json!({"type": "object", "properties": {
        "certificate": octets(), "ca": octets(), "conditions": {"type": "array", "items": condition}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificaterequests.cert-manager.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": {"kind": "CertificateRequest", "listKind": "CertificateRequestList", "plural": "certificaterequests",
                "singular": "certificaterequest", "shortNames": ["cr", "crs"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"],
                    "properties": {"spec": spec, "status": status}}},
            }],
        },
    })
}

fn request(scene: &Scene) -> Result {
    let a = &scene.a;
    a.apply(&kind().to_string())?;
    a.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd/certificaterequests.cert-manager.io",
    ])?;
    let issuer = json!({"kind": "ClusterIssuer", "name": ISSUER});
    scene.apply(&json!({"issuedBy": "CertManager", "issuerRef": issuer, "caSecret": null}))?;
    let asked = a.wait_for("a request", 2 * PATIENCE, &["certificaterequests", "-n", NAMESPACE], |list| {
        list["items"].get(0).cloned().ok_or_else(|| "none is there".to_owned())
    })?;
    let reference = json!({"group": "cert-manager.io", "kind": "ClusterIssuer", "name": ISSUER});
    ensure(asked["spec"]["issuerRef"] == reference, &format!("asked: {asked}"))?;
    let (name, pem) = (&asked["metadata"]["name"], &asked["spec"]["request"]);
    let (name, pem) = (name.as_str().unwrap_or_default(), pem.as_str().unwrap_or_default());
    scene.shell(&format!("echo {pem} | base64 -d > request.pem"))?;
    scene.sign()?;
    let chain = scene.shell("base64 -w0 tls.crt")?;
    let ready =
        json!([{"type": "Ready", "status": "True", "reason": "Issued", "message": "Certificate fetched"}]);
    let status = json!({"status": {"certificate": chain, "conditions": ready}}).to_string();
    let patch =
        ["patch", "certificaterequest", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p"];
    a.kubectl(&[&patch[..], &[&status]].concat())?;
    scene.wait_used()?;
    a.wait_overlay("dmvpnspoke")
}
