//! What an API server has been told to write, as it counts that itself.

use super::control_plane::ControlPlane;
use crate::error::Result;
use std::collections::BTreeMap;

impl ControlPlane {
    /// Writes to our kinds since the API server started, by resource and subresource (`dmvpnnodes/status`), those that
    /// changed nothing included.
    pub fn writes(&self) -> Result<BTreeMap<String, u64>> {
        let metrics = self.kubectl(&["get", "--raw", "/metrics"])?;
        let mut writes = BTreeMap::new();
        for (what, count) in metrics.lines().filter_map(write) {
            *writes.entry(what).or_default() += count;
        }
        Ok(writes)
    }
}

/// A line that counts requests which write to one of our kinds.
fn write(line: &str) -> Option<(String, u64)> {
    let line = line.strip_prefix("apiserver_request_total{")?;
    let (labels, count) = line.rsplit_once("} ")?;
    let label = |name: &str| {
        let mut all = labels.split(',').filter_map(|label| label.split_once('='));
        all.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
    };
    let writes = matches!(label("verb")?, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE");
    if !writes || label("group")? != "kube-dmvpn.io" || label("dry_run") != Some("") {
        return None;
    }
    let resource = label("resource")?;
    let what = match label("subresource")? {
        "" => resource.to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    Some((what, count.parse::<f64>().ok()? as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_to_our_kinds_count() {
        let line = |group: &str, verb: &str| {
            format!(
                "apiserver_request_total{{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"{group}\",\
                 resource=\"dmvpnnodes\",scope=\"resource\",subresource=\"status\",verb=\"{verb}\",version=\"v1alpha1\"}} 5"
            )
        };
        assert_eq!(write(&line("kube-dmvpn.io", "APPLY")), Some(("dmvpnnodes/status".to_owned(), 5)));
        assert_eq!(write(&line("kube-dmvpn.io", "WATCH")), None);
        assert_eq!(write(&line("apps", "APPLY")), None);
    }
}
