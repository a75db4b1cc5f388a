//! The parameters in the environment: which are needed depends on the verb.

use crate::error::Error;
use rpc::cni::{Attachment, Pod};
use std::path::PathBuf;

/// The verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// What the environment says. What a verb needs is there and well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) command: Command,
    pub(crate) container: String,
    pub(crate) interface: String,
    /// Empty: not said.
    pub(crate) netns: String,
    /// Where delegated plugins are looked for.
    pub(crate) path: Vec<PathBuf>,
    arguments: Vec<(String, String)>,
}

impl Call {
    /// Reads the parameters.
    pub(crate) fn parse(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let value = |name: &str| variable(name).unwrap_or_default();
        let command = match value("CNI_COMMAND").as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            "" => return Err(Error::Environment("CNI_COMMAND is missing".to_owned())),
            other => return Err(Error::Environment(format!("CNI_COMMAND={other} is no command of CNI's"))),
        };
        let call = Self {
            command,
            container: value("CNI_CONTAINERID"),
            interface: value("CNI_IFNAME"),
            netns: value("CNI_NETNS"),
            path: value("CNI_PATH").split(':').filter(|p| !p.is_empty()).map(PathBuf::from).collect(),
            arguments: arguments(&value("CNI_ARGS")),
        };
        let problems = call.problems();
        if problems.is_empty() { Ok(call) } else { Err(Error::Environment(problems.join(", "))) }
    }

    /// The attachment to `network` that this is about.
    pub(crate) fn attachment(&self, network: &str) -> Attachment {
        Attachment {
            network: network.to_owned(),
            container: self.container.clone(),
            interface: self.interface.clone(),
        }
    }

    /// The pod, if it is one of Kubernetes'.
    pub(crate) fn pod(&self) -> Option<Pod> {
        let argument = |key: &str| self.arguments.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        Some(Pod {
            namespace: argument("K8S_POD_NAMESPACE")?,
            name: argument("K8S_POD_NAME")?,
            uid: argument("K8S_POD_UID").unwrap_or_default(),
        })
    }

    //= cni-1.1.0#section-5: The error message must contain the names of invalid variables.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if matches!(self.command, Command::Add | Command::Del | Command::Check) {
            if !is_identifier(&self.container) {
                problems.push(complaint("CNI_CONTAINERID", &self.container));
            }
            if !is_interface(&self.interface) {
                problems.push(complaint("CNI_IFNAME", &self.interface));
            }
        }
        if matches!(self.command, Command::Add | Command::Check) && self.netns.is_empty() {
            problems.push(complaint("CNI_NETNS", ""));
        }
        problems
    }
}

fn complaint(name: &str, value: &str) -> String {
    if value.is_empty() { format!("{name} is missing") } else { format!("{name}={value} is not valid") }
}

/// Names of containers and networks: alphanumeric, then also `_`, `.` and `-`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ['_', '.', '-'].contains(&c))
}

fn is_interface(text: &str) -> bool {
    let refused = |c: char| c == '/' || c == ':' || c.is_whitespace();
    !text.is_empty() && text.len() < 16 && text != "." && text != ".." && !text.contains(refused)
}

fn arguments(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
pub(crate) fn for_tests(command: &str) -> Call {
    let value = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "c-1",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/none",
            "CNI_PATH" => "/opt/cni/bin",
            "CNI_ARGS" => "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    Call::parse(value).expect("a valid call")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(set: &[(&str, &str)]) -> Result<Call, Error> {
        Call::parse(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn every_missing_variable_is_named() {
        let error = parse(&[("CNI_COMMAND", "ADD")]).unwrap_err();
        let Error::Environment(text) = &error else { panic!("{error:?}") };
        for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
            assert!(text.contains(name), "{text}");
        }
        assert_eq!(error.code(), 4);
    }

    #[test]
    fn del_needs_no_namespace() {
        let set = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
        assert_eq!(parse(&set).unwrap().netns, "");
    }

    #[test]
    fn gc_status_and_version_need_no_attachment() {
        for command in ["GC", "STATUS", "VERSION"] {
            assert_eq!(parse(&[("CNI_COMMAND", command)]).unwrap().command.as_str(), command);
        }
    }

    #[test]
    fn an_unknown_command_is_named() {
        let error = parse(&[("CNI_COMMAND", "MOVE")]).unwrap_err();
        assert!(error.to_string().contains("CNI_COMMAND=MOVE"), "{error}");
        assert_eq!(parse(&[]).unwrap_err().code(), 4);
    }

    #[test]
    fn container_ids_and_interface_names_are_held_to_the_specification() {
        for bad in ["", "-a", ".a", "a/b", "a b", "a:b"] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
        assert!(is_identifier("0a_b.c-D"));
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-octets-x"] {
            assert!(!is_interface(bad), "{bad:?}");
        }
        assert!(is_interface("fifteen-octets-"));
    }

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        let call = for_tests("ADD");
        let pod = call.pod().unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("shop", "web-0", "u-1"));
        let set = [("CNI_COMMAND", "GC"), ("CNI_ARGS", "K8S_POD_NAME=web-0;;broken")];
        assert_eq!(parse(&set).unwrap().pod(), None);
    }
}
