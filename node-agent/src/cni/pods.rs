//! What is known of this node's pods, and which addresses are therefore kept from the overlay. Pure.

use crds::kubernetes::{OVERLAY_ANNOTATION, OVERLAY_DISABLED, OVERLAY_ENABLED};
use rpc::cni::{AddRequest, Attachment};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The most attachments that are remembered: many times what a kubelet allows.
pub const MOST: usize = 4096;

/// An attachment, as CNI names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Name of the network.
    pub network: String,
    /// Container.
    pub container: String,
    /// Interface inside it.
    pub interface: String,
}

impl From<&Attachment> for Key {
    fn from(attachment: &Attachment) -> Self {
        let Attachment { network, container, interface } = attachment.clone();
        Self { network, container, interface }
    }
}

/// Name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// What an annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Uses the overlay.
    Enabled,
    /// Does not.
    Disabled,
}

impl Choice {
    /// Reads the annotation among others. One that is neither is the same as none; it is told in the log.
    #[must_use]
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        match annotations.get(OVERLAY_ANNOTATION)?.as_str() {
            OVERLAY_ENABLED => Some(Self::Enabled),
            OVERLAY_DISABLED => Some(Self::Disabled),
            other => {
                tracing::warn!(
                    "annotation {OVERLAY_ANNOTATION}: {other:?} means nothing; write {OVERLAY_ENABLED} or {OVERLAY_DISABLED}"
                );
                None
            }
        }
    }
}

/// An attachment that the plugin told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The pod, if it is one of Kubernetes'.
    pub pod: Option<PodName>,
    /// Its UID; empty: not told.
    pub uid: String,
    /// Its addresses on this interface.
    pub addresses: Vec<IpAddr>,
    /// What its own annotation said.
    pub choice: Option<Choice>,
    /// What its routes were limited to; 0: nothing.
    pub mtu: u32,
    /// Later ones have greater numbers.
    pub number: u64,
}

/// A pod as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiPod {
    /// Its UID.
    pub uid: String,
    /// Its addresses; none of a pod that uses the node's or has ended.
    pub addresses: Vec<IpAddr>,
    /// What its own annotation says.
    pub choice: Option<Choice>,
}

/// Why a request can't be understood, or served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No attachment, or one without a container.
    #[error("the request names no attachment")]
    Nameless,
    /// Not an address.
    #[error("{0:?} is not an address")]
    Address(String),
    /// Too many.
    #[error("{MOST} attachments are known already: are they deleted, or garbage collected?")]
    Full,
}

/// All pods of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    attached: BTreeMap<Key, Attached>,
    api: BTreeMap<PodName, ApiPod>,
    /// Only those whose annotation says something.
    namespaces: BTreeMap<String, Choice>,
}

/// What is remembered over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    attached: Vec<(Key, Attached)>,
    namespaces: BTreeMap<String, Choice>,
    /// Also these: a pod older than the plugin, or with a new annotation, is kept out from the first moment.
    #[serde(default)]
    api: Vec<(PodName, ApiPod)>,
}

impl Pods {
    /// Takes up what was remembered.
    #[must_use]
    pub fn recall(memory: Memory) -> Self {
        let Memory { attached, namespaces, api } = memory;
        Self { attached: attached.into_iter().collect(), namespaces, api: api.into_iter().collect() }
    }

    /// What to remember.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let attached = self.attached.iter().map(|(key, attached)| (key.clone(), attached.clone()));
        let api = self.api.iter().map(|(name, pod)| (name.clone(), pod.clone()));
        Memory { attached: attached.collect(), namespaces: self.namespaces.clone(), api: api.collect() }
    }

    /// A pod was attached; `mtu` is what its routes are limited to if it uses the overlay. Says whether it does.
    pub fn add(&mut self, request: &AddRequest, mtu: u32) -> Result<bool, Refused> {
        let key = Key::from(request.attachment.as_ref().ok_or(Refused::Nameless)?);
        if key.container.is_empty() {
            return Err(Refused::Nameless);
        }
        if self.attached.len() >= MOST && !self.attached.contains_key(&key) {
            return Err(Refused::Full);
        }
        let parse = |text: &String| text.parse().map_err(|_| Refused::Address(text.clone()));
        let addresses = request.addresses.iter().map(parse).collect::<Result<_, _>>()?;
        let pod = request.pod.as_ref();
        let mut attached = Attached {
            pod: pod.map(|pod| PodName { namespace: pod.namespace.clone(), name: pod.name.clone() }),
            uid: pod.map(|pod| pod.uid.clone()).unwrap_or_default(),
            addresses,
            choice: Choice::of(&request.annotations),
            mtu: 0,
            number: self.attached.values().map(|a| a.number).max().unwrap_or_default() + 1,
        };
        let overlay = self.choice(&attached) == Choice::Enabled;
        attached.mtu = if overlay { mtu } else { 0 };
        self.attached.insert(key, attached);
        Ok(overlay)
    }

    /// It is detached. Returns what was known.
    pub fn delete(&mut self, key: &Key) -> Option<Attached> {
        self.attached.remove(key)
    }

    /// What is known of an attachment.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Attached> {
        self.attached.get(key)
    }

    /// Forgets attachments to `network` that are not among the valid ones. Returns how many.
    pub fn collect(&mut self, network: &str, valid: &BTreeSet<Key>) -> usize {
        let before = self.attached.len();
        self.attached.retain(|key, _| key.network != network || valid.contains(key));
        before - self.attached.len()
    }

    /// What the API server says of a pod; `None`: there is no such pod any more.
    pub fn set_pod(&mut self, name: PodName, pod: Option<ApiPod>) {
        match pod {
            Some(pod) => self.api.insert(name, pod),
            None => self.api.remove(&name),
        };
    }

    /// These are all the pods the API server knows on this node.
    pub fn set_pods(&mut self, pods: BTreeMap<PodName, ApiPod>) {
        self.api = pods;
    }

    /// What the annotation of a namespace says.
    pub fn set_namespace(&mut self, name: &str, choice: Option<Choice>) {
        match choice {
            Some(choice) => self.namespaces.insert(name.to_owned(), choice),
            None => self.namespaces.remove(name),
        };
    }

    /// What the annotations of all namespaces say, as far as they say something.
    pub fn set_namespaces(&mut self, namespaces: BTreeMap<String, Choice>) {
        self.namespaces = namespaces;
    }

    /// Addresses of pods that may not use the overlay. Where two speak of one address the plugin is right, and its later
    /// word: the API server may not know yet that an address has gone to another pod.
    #[must_use]
    pub fn excluded(&self) -> BTreeSet<IpAddr> {
        let mut excluded = BTreeSet::new();
        for (name, pod) in &self.api {
            if pod.choice.unwrap_or_else(|| self.of_namespace(&name.namespace)) == Choice::Disabled {
                excluded.extend(&pod.addresses);
            }
        }
        let mut attached: Vec<&Attached> = self.attached.values().collect();
        attached.sort_by_key(|attached| attached.number);
        for attached in attached {
            match self.choice(attached) {
                Choice::Disabled => excluded.extend(&attached.addresses),
                Choice::Enabled => excluded.retain(|address| !attached.addresses.contains(address)),
            }
        }
        excluded
    }

    fn choice(&self, attached: &Attached) -> Choice {
        let Some(name) = &attached.pod else { return attached.choice.unwrap_or(Choice::Enabled) };
        let api = self.api.get(name).filter(|pod| attached.uid.is_empty() || attached.uid == pod.uid);
        // An annotation may have changed since the pod was attached.
        let own = api.map_or(attached.choice, |pod| pod.choice);
        own.unwrap_or_else(|| self.of_namespace(&name.namespace))
    }

    fn of_namespace(&self, name: &str) -> Choice {
        self.namespaces.get(name).copied().unwrap_or(Choice::Enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::cni::Pod;

    fn request(container: &str, pod: &str, address: &str, annotation: Option<&str>) -> AddRequest {
        let annotations = annotation.map(|value| (OVERLAY_ANNOTATION.to_owned(), value.to_owned()));
        AddRequest {
            attachment: Some(Attachment {
                network: "pods".to_owned(),
                container: container.to_owned(),
                interface: "eth0".to_owned(),
            }),
            pod: Some(Pod { namespace: "shop".to_owned(), name: pod.to_owned(), uid: format!("uid-{pod}") }),
            addresses: vec![address.to_owned()],
            annotations: annotations.into_iter().collect(),
            annotations_known: true,
        }
    }

    fn key(container: &str) -> Key {
        let text = |text: &str| text.to_owned();
        Key { network: text("pods"), container: text(container), interface: text("eth0") }
    }

    fn name(pod: &str) -> PodName {
        PodName { namespace: "shop".to_owned(), name: pod.to_owned() }
    }

    fn api(pod: &str, address: &str, choice: Option<Choice>) -> ApiPod {
        ApiPod { uid: format!("uid-{pod}"), addresses: vec![address.parse().unwrap()], choice }
    }

    fn excluded(pods: &Pods) -> Vec<String> {
        pods.excluded().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_uses_the_overlay_unless_it_says_otherwise() {
        let mut pods = Pods::default();
        assert_eq!(pods.add(&request("a", "web", "10.1.0.5", None), 1400), Ok(true));
        assert_eq!(pods.add(&request("b", "db", "10.1.0.6", Some("disabled")), 1400), Ok(false));
        assert_eq!(excluded(&pods), ["10.1.0.6"]);
        assert_eq!((pods.get(&key("a")).unwrap().mtu, pods.get(&key("b")).unwrap().mtu), (1400, 0));
    }

    #[test]
    fn the_pods_own_annotation_wins_over_its_namespaces() {
        let mut pods = Pods::default();
        pods.set_namespace("shop", Some(Choice::Disabled));
        assert_eq!(pods.add(&request("a", "web", "10.1.0.5", None), 1400), Ok(false));
        assert_eq!(pods.add(&request("b", "db", "10.1.0.6", Some("enabled")), 1400), Ok(true));
        assert_eq!(excluded(&pods), ["10.1.0.5"]);
    }

    #[test]
    fn a_namespace_that_changes_its_mind_moves_its_pods() {
        let mut pods = Pods::default();
        pods.add(&request("a", "web", "10.1.0.5", None), 1400).unwrap();
        pods.set_namespace("shop", Some(Choice::Disabled));
        assert_eq!(excluded(&pods), ["10.1.0.5"]);
        pods.set_namespace("shop", None);
        assert!(excluded(&pods).is_empty());
    }

    #[test]
    fn an_annotation_that_changed_since_is_the_api_servers_to_tell() {
        let mut pods = Pods::default();
        pods.add(&request("a", "web", "10.1.0.5", Some("disabled")), 1400).unwrap();
        pods.set_pod(name("web"), Some(api("web", "10.1.0.5", None)));
        assert!(excluded(&pods).is_empty());
        pods.set_pod(name("web"), Some(api("web", "10.1.0.5", Some(Choice::Disabled))));
        assert_eq!(excluded(&pods), ["10.1.0.5"]);
    }

    #[test]
    fn a_pod_older_than_the_plugin_is_known_by_the_api_server() {
        let mut pods = Pods::default();
        pods.set_pod(name("old"), Some(api("old", "10.1.0.7", Some(Choice::Disabled))));
        assert_eq!(excluded(&pods), ["10.1.0.7"]);
        pods.set_pod(name("old"), None);
        assert!(excluded(&pods).is_empty());
    }

    #[test]
    fn an_address_that_went_to_another_pod_is_not_kept_from_it() {
        let mut pods = Pods::default();
        pods.set_pod(name("old"), Some(api("old", "10.1.0.5", Some(Choice::Disabled))));
        pods.add(&request("b", "new", "10.1.0.5", None), 1400).unwrap();
        assert!(excluded(&pods).is_empty());
        // Nor by an attachment whose DEL never came.
        pods.add(&request("a", "old", "10.1.0.5", Some("disabled")), 1400).unwrap();
        pods.add(&request("b", "new", "10.1.0.5", None), 1400).unwrap();
        assert!(excluded(&pods).is_empty());
    }

    #[test]
    fn a_pod_of_the_same_name_with_another_uid_is_another_pod() {
        let mut pods = Pods::default();
        pods.set_pod(name("web"), Some(ApiPod { uid: "older".to_owned(), ..api("web", "10.1.0.4", None) }));
        assert_eq!(pods.add(&request("a", "web", "10.1.0.5", Some("disabled")), 1400), Ok(false));
        assert_eq!(excluded(&pods), ["10.1.0.5"]);
    }

    #[test]
    fn garbage_collection_touches_one_network_only() {
        let mut pods = Pods::default();
        for container in ["a", "b"] {
            pods.add(&request(container, container, "10.1.0.5", None), 1400).unwrap();
        }
        assert_eq!(pods.collect("other", &BTreeSet::new()), 0);
        assert_eq!(pods.collect("pods", &BTreeSet::from([key("a")])), 1);
        assert!(pods.get(&key("a")).is_some() && pods.get(&key("b")).is_none());
    }

    #[test]
    fn what_is_remembered_excludes_the_same() {
        let mut pods = Pods::default();
        pods.set_namespace("shop", Some(Choice::Disabled));
        pods.add(&request("a", "web", "10.1.0.5", None), 1400).unwrap();
        pods.set_pod(name("old"), Some(api("old", "10.1.0.7", Some(Choice::Disabled))));
        let text = serde_json::to_string(&pods.memory()).unwrap();
        assert_eq!(Pods::recall(serde_json::from_str(&text).unwrap()), pods);
        // Of an agent that did not remember what the API server said.
        let older: Memory = serde_json::from_str(r#"{"attached": [], "namespaces": {}}"#).unwrap();
        assert_eq!(Pods::recall(older), Pods::default());
    }

    #[test]
    fn attachments_are_bounded_and_garbage_is_refused() {
        let mut pods = Pods::default();
        for number in 0..MOST {
            pods.add(&request(&number.to_string(), "p", "10.1.0.5", None), 0).unwrap();
        }
        assert_eq!(pods.add(&request("more", "p", "10.1.0.5", None), 0), Err(Refused::Full));
        assert_eq!(pods.add(&request("0", "p", "10.1.0.5", None), 0), Ok(true));
        assert_eq!(pods.add(&request("0", "p", "no", None), 0), Err(Refused::Address("no".to_owned())));
        assert_eq!(pods.add(&AddRequest::default(), 0), Err(Refused::Nameless));
    }
}
