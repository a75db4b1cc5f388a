//! Label selectors, as Kubernetes means them.

use crate::NodeFacts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Does a selector select this node? None selects nothing, an empty one everything. An operator that is not known
/// selects nothing.
#[must_use]
pub fn selects(selector: Option<&LabelSelector>, node: &NodeFacts) -> bool {
    let Some(selector) = selector else { return false };
    let labels =
        selector.match_labels.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|requirement| {
        let value = node.labels.get(&requirement.key);
        let listed = || value.is_some_and(|v| requirement.values.iter().flatten().any(|w| w == v));
        match requirement.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    labels && expressions
}

/// Does a selector ask for labels at all?
pub(crate) fn needs_labels(selector: Option<&LabelSelector>) -> bool {
    selector.is_some_and(|s| {
        s.match_labels.as_ref().is_some_and(|l| !l.is_empty())
            || s.match_expressions.as_ref().is_some_and(|e| !e.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use std::collections::BTreeMap;

    fn node(labels: &[(&str, &str)]) -> NodeFacts {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NodeFacts { labels, ..NodeFacts::named("a") }
    }

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        let values = Some(values.iter().map(|v| (*v).to_owned()).collect());
        let requirement = LabelSelectorRequirement { key: "zone".into(), operator: operator.into(), values };
        LabelSelector { match_expressions: Some(vec![requirement]), ..LabelSelector::default() }
    }

    #[test]
    fn no_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!selects(None, &node(&[])));
        assert!(selects(Some(&LabelSelector::default()), &node(&[])));
    }

    #[test]
    fn labels_must_all_match() {
        let labels = BTreeMap::from([("hub".to_owned(), "true".to_owned())]);
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        assert!(selects(Some(&selector), &node(&[("hub", "true"), ("x", "y")])));
        assert!(!selects(Some(&selector), &node(&[("hub", "false")])));
        assert!(!selects(Some(&selector), &node(&[])));
    }

    #[test]
    fn expressions_mean_what_kubernetes_means() {
        let (a, none) = (node(&[("zone", "a")]), node(&[]));
        for (operator, values, with, without) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"], false, false),
            ("NotIn", &["a"], false, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Near", &["a"], false, false),
        ] {
            let selector = expression(operator, values);
            assert_eq!(selects(Some(&selector), &a), with, "{operator} {values:?}");
            assert_eq!(selects(Some(&selector), &none), without, "{operator} {values:?}");
        }
    }
}
