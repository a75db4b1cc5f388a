//! The clusters of the lab themselves: pods run, talk, and have names, before any of our software is on them.

use lab::kubernetes::{Cluster, ControlPlane, Plan, PodPlan, Proxy};
use lab::traffic::Ping;
use lab::{Nat, NatRouter, story};
use std::process::Command;

#[test]
fn an_api_server_alone_takes_objects() {
    story("kubernetes_api", |lab| {
        let api = ControlPlane::alone(lab, "api")?;
        api.apply(
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}, "data": {"a": "b"}}"#,
        )?;
        assert_eq!(api.get(&["configmap", "seen"])?["data"]["a"], "b");
        Ok(())
    });
}

#[test]
fn pods_of_a_cluster_talk_by_address_and_by_service_and_leave_it_masqueraded() {
    story("kubernetes_pods", |lab| {
        let private =
            Plan::new("private", 1).behind(NatRouter::new(Nat::PortPreserving)).proxy(Proxy::Nftables);
        let [private, public] = &Cluster::start_all(lab, &[private, Plan::new("public", 2).nodes(1)])?;

        let web = private.run_pod(&PodPlan::web("web", "hello").on("private-1"))?;
        let client = private.run_pod(&PodPlan::new("client").on("private-2"))?;
        assert!(web.address.starts_with("10.1.1.") && client.address.starts_with("10.1.2."));
        Ping::times(3).expect(client.host(), &web.address)?;
        assert_eq!(private.fetch("client", &web.address)?, "hello\n");

        private.kubectl(&["expose", "pod", "web", "--port", "80"])?;
        let service =
            private.get(&["service", "web"])?["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        let page =
            lab::wait::until("the Service", lab::wait::PATIENCE, || private.fetch("client", &service))?;
        assert_eq!(page, "hello\n");

        // A pod of another cluster is out of reach, and the Internet knows pods by their router only.
        let far = public.run_pod(&PodPlan::new("far"))?;
        assert_eq!(Ping::times(2).run(client.host(), &far.address)?.round_trips.len(), 0);
        let at_far = lab::Capture::start(public.router(), &["wan"])?;
        let public_node = public.machine(1)?.address();
        Ping::times(2).expect(client.host(), &public_node)?;
        let from = private.plan().public();
        at_far.wait_for("a ping of the pod", lab::wait::PATIENCE, |p| p.ip.goes(&from, &public_node))?;

        let mut helm = Command::new(lab::kubernetes::tool("helm")?);
        helm.arg("version");
        assert!(private.output(&mut helm, "")?.contains("v4"));
        Ok(())
    });
}
