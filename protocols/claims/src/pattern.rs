//! Patterns over identities, which are DNS names.

/// Does `pattern` match `identity`?
///
/// `*` matches anyone, also a peer that asserts no identity. A leading `*.` stands for exactly one label, never for
/// none and never for several (as TLS reads it, RFC 6125 §6.4.3): `*.branch.example.com` matches
/// `a.branch.example.com`, and neither `branch.example.com` nor `a.b.branch.example.com`. Anything else matches
/// itself. DNS names have no case, and a trailing dot says nothing.
#[must_use]
pub fn matches(pattern: &str, identity: Option<&str>) -> bool {
    if pattern == "*" {
        return true;
    }
    let Some(identity) = identity.map(without_dot).filter(|i| !i.is_empty()) else {
        return false;
    };
    let pattern = without_dot(pattern);
    let Some(parent) = pattern.strip_prefix("*.") else {
        return pattern.eq_ignore_ascii_case(identity);
    };
    match identity.split_once('.') {
        Some((label, rest)) => !label.is_empty() && rest.eq_ignore_ascii_case(parent),
        None => false,
    }
}

/// Could this, said as a name, be read as a pattern? Names are used as patterns over whom to expect, and nobody is called
/// by what stands for many.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BRANCHES: &str = "*.branch.example.com";

    #[test]
    fn a_wildcard_is_exactly_one_label() {
        assert!(matches(BRANCHES, Some("a.branch.example.com")));
        assert!(!matches(BRANCHES, Some("branch.example.com")));
        assert!(!matches(BRANCHES, Some("a.b.branch.example.com")));
        assert!(!matches(BRANCHES, Some(".branch.example.com")));
    }

    #[test]
    fn a_suffix_without_a_dot_is_not_a_label() {
        assert!(!matches(BRANCHES, Some("evilbranch.example.com")));
        assert!(!matches(BRANCHES, Some("a.evilbranch.example.com")));
    }

    #[test]
    fn names_have_no_case_and_a_trailing_dot_says_nothing() {
        assert!(matches("Hub.Example.com", Some("hub.example.COM.")));
        assert!(matches("*.EXAMPLE.com.", Some("hub.example.com")));
    }

    #[test]
    fn only_the_star_matches_a_peer_without_identity() {
        assert!(matches("*", None));
        assert!(!matches(BRANCHES, None));
        assert!(!matches("", None));
        assert!(!matches("", Some("")));
    }

    #[test]
    fn a_star_inside_a_name_is_no_wildcard() {
        assert!(!matches("a*.example.com", Some("ab.example.com")));
        assert!(!matches("a.*.com", Some("a.example.com")));
    }

    proptest! {
        #[test]
        fn a_wildcard_matches_its_parent_with_any_one_label(label in "[a-z0-9-]{1,20}", parent in "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}") {
            let (pattern, name, deeper) = (format!("*.{parent}"), format!("{label}.{parent}"), format!("x.{label}.{parent}"));
            prop_assert!(matches(&pattern, Some(&name)));
            prop_assert!(!matches(&pattern, Some(&deeper)));
            prop_assert!(!matches(&pattern, Some(&parent)));
        }

        #[test]
        fn no_input_panics(pattern in ".{0,40}", identity in proptest::option::of(".{0,40}")) {
            let _ = matches(&pattern, identity.as_deref());
        }
    }
}
