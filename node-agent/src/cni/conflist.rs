//! A network configuration list as text, with our plugin at the end of its chain. The rest stays as it is, octet for
//! octet: formatting, the order of fields, and fields that nobody here knows. Pure.

use serde_json::Value;
use std::ops::Range;

/// The name of our binary, which is the `type` of our entry.
pub const PLUGIN: &str = "dmvpn-cni";

/// Why a file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not JSON.
    #[error("it is no JSON: {0}")]
    Json(String),
    /// No list.
    #[error("it has no list of plugins")]
    NoList,
    /// Nothing to come after.
    #[error("its list has no other plugin")]
    Empty,
    /// Our plugin makes the pods' interface there: who configured that decides about the rest of the list too.
    #[error("it has {PLUGIN} with ipam already")]
    Standalone,
    /// What came out is not what was meant; never seen.
    #[error("our plugin could not be added without changing the rest")]
    Unexpected,
}

/// The text with `entry` as the last plugin, in the place of an older entry of ours; `None`: it says so already.
pub fn with(text: &str, entry: &Value) -> Result<Option<String>, Unusable> {
    if stands_alone(text) {
        return Err(Unusable::Standalone);
    }
    let bare = without(text)?;
    let bare = bare.as_deref().unwrap_or(text);
    let list = List::find(bare)?;
    let last = list.plugins.last().ok_or(Unusable::Empty)?;
    let before = bare.get(..last.end).ok_or(Unusable::Unexpected)?;
    let after = bare.get(last.end..).ok_or(Unusable::Unexpected)?;
    let new = format!("{before},{}{entry}{after}", list.separator(bare));
    check(bare, &new, entry)?;
    Ok((new != text).then_some(new))
}

/// Does this configuration, a list or not, say that our plugin makes an interface of its own?
#[must_use]
pub fn stands_alone(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    let plugins = value.get("plugins").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    plugins.iter().chain([&value]).any(|plugin| is_plugin(plugin) && plugin.get("ipam").is_some())
}

fn is_plugin(entry: &Value) -> bool {
    entry.get("type").is_some_and(|kind| kind == PLUGIN)
}

/// The text without our plugin, where it is chained; `None`: it isn't there.
pub fn without(text: &str) -> Result<Option<String>, Unusable> {
    let list = List::find(text)?;
    let is_ours = |range: &&Range<usize>| {
        let entry = text.get((*range).clone()).and_then(|t| serde_json::from_str::<Value>(t).ok());
        entry.is_some_and(|entry| is_plugin(&entry) && entry.get("ipam").is_none())
    };
    let Some(at) = list.plugins.iter().position(|range| is_ours(&range)) else { return Ok(None) };
    let cut = match (
        at.checked_sub(1).and_then(|b| list.plugins.get(b)),
        list.plugins.get(at),
        list.plugins.get(at + 1),
    ) {
        (Some(before), Some(ours), _) => before.end..ours.end,
        (None, Some(ours), Some(after)) => ours.start..after.start,
        _ => return Err(Unusable::Empty),
    };
    let mut new = text.to_owned();
    new.replace_range(cut, "");
    // There may be more than one.
    Ok(Some(without(&new)?.unwrap_or(new)))
}

/// Is it the same but for our entry at the end?
fn check(before: &str, after: &str, entry: &Value) -> Result<(), Unusable> {
    let mut wanted: Value = serde_json::from_str(before).map_err(|e| Unusable::Json(e.to_string()))?;
    let plugins = wanted.get_mut("plugins").and_then(Value::as_array_mut).ok_or(Unusable::NoList)?;
    plugins.push(entry.clone());
    let came: Value = serde_json::from_str(after).map_err(|_| Unusable::Unexpected)?;
    if came == wanted { Ok(()) } else { Err(Unusable::Unexpected) }
}

/// Where the plugins stand in the text.
struct List {
    /// After the opening bracket.
    start: usize,
    plugins: Vec<Range<usize>>,
}

impl List {
    fn find(text: &str) -> Result<Self, Unusable> {
        let value: Value = serde_json::from_str(text).map_err(|e| Unusable::Json(e.to_string()))?;
        if !value.get("plugins").is_some_and(Value::is_array) {
            return Err(Unusable::NoList);
        }
        // It is valid JSON from here on, so brackets match.
        let mut scanner = Scanner { text, at: 0 };
        scanner.skip(b"{");
        let mut found = None;
        while scanner.peek() == Some(b'"') {
            let key = scanner.value();
            scanner.skip(b":");
            let is_plugins = text.get(key).and_then(|k| serde_json::from_str::<String>(k).ok());
            if is_plugins.as_deref() == Some("plugins") && scanner.peek() == Some(b'[') {
                found = Some(scanner.list());
            } else {
                scanner.value();
            }
            scanner.skip(b",");
        }
        found.ok_or(Unusable::NoList)
    }

    /// What stands before the first plugin: the line break and indentation, if people read it.
    fn separator<'a>(&self, text: &'a str) -> &'a str {
        self.plugins.first().and_then(|first| text.get(self.start..first.start)).unwrap_or_default()
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    /// The next octet that isn't white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let octet = *self.text.as_bytes().get(self.at)?;
            if !octet.is_ascii_whitespace() {
                return Some(octet);
            }
            self.at += 1;
        }
    }

    /// Goes past one of these, if it is next.
    fn skip(&mut self, octets: &[u8]) {
        if self.peek().is_some_and(|octet| octets.contains(&octet)) {
            self.at += 1;
        }
    }

    /// Goes past a value of any kind. Returns where it stood.
    fn value(&mut self) -> Range<usize> {
        self.peek();
        let (start, mut depth, mut quoted) = (self.at, 0_usize, false);
        while let Some(octet) = self.text.as_bytes().get(self.at) {
            match octet {
                b'\\' if quoted => self.at += 1,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                // What closes is what is around a plain value.
                b'}' | b']' if !quoted && depth == 0 => break,
                b'}' | b']' if !quoted => depth -= 1,
                b',' | b':' if !quoted && depth == 0 => break,
                b' ' | b'\t' | b'\r' | b'\n' if !quoted && depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        start..self.at
    }

    fn list(&mut self) -> List {
        self.skip(b"[");
        let mut list = List { start: self.at, plugins: Vec::new() };
        while self.peek().is_some_and(|octet| octet != b']') {
            list.plugins.push(self.value());
            self.skip(b",");
        }
        self.skip(b"]");
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PRETTY: &str = r#"{
  "cniVersion": "0.3.1",
  "name": "k8s-\"pod]-network",
  "unknown": {"plugins": ["not this"], "z": 1, "a": 2.50},
  "plugins": [
    {
      "type": "calico",
      "log": "a \\ ] } , \" b",
      "ipam": {"type": "calico-ipam"}
    },
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ],
  "last": null
}
"#;

    fn entry() -> Value {
        json!({"type": PLUGIN, "capabilities": {"io.kubernetes.cri.pod-annotations": true}})
    }

    #[test]
    fn our_plugin_comes_last_and_nothing_else_changes() {
        let new = with(PRETTY, &entry()).unwrap().unwrap();
        let value: Value = serde_json::from_str(&new).unwrap();
        let types: Vec<_> = value["plugins"].as_array().unwrap().iter().map(|p| p["type"].clone()).collect();
        assert_eq!(types, ["calico", "portmap", PLUGIN]);
        for line in PRETTY.lines().filter(|line| !line.contains("portmap")) {
            assert!(new.contains(line), "{line}");
        }
    }

    #[test]
    fn added_and_removed_is_as_before_to_the_octet() {
        let compact = r#"{"plugins":[{"type":"bridge"}],"name":"n"}"#;
        for text in [PRETTY, compact, "{\"plugins\" : [ {\"type\":\"x\"} ] }"] {
            let new = with(text, &entry()).unwrap().unwrap();
            assert_eq!(without(&new).unwrap().as_deref(), Some(text));
        }
    }

    #[test]
    fn added_twice_is_added_once() {
        let new = with(PRETTY, &entry()).unwrap().unwrap();
        assert_eq!(with(&new, &entry()), Ok(None));
    }

    #[test]
    fn an_older_entry_is_replaced() {
        let old = with(PRETTY, &json!({"type": PLUGIN, "old": true})).unwrap().unwrap();
        assert_eq!(with(&old, &entry()), with(PRETTY, &entry()));
    }

    #[test]
    fn another_plugin_that_came_after_ours_stays_before_it() {
        let text = r#"{"plugins":[{"type":"bridge"},{"type":"dmvpn-cni"},{"type":"late"}]}"#;
        let new = with(text, &entry()).unwrap().unwrap();
        assert!(new.find("late") < new.find(PLUGIN), "{new}");
    }

    #[test]
    fn a_list_in_which_our_plugin_makes_the_interface_stays_as_it_is() {
        let alone = r#"{"plugins":[{"type":"dmvpn-cni","ipam":{"type":"host-local"}},{"type":"portmap"}]}"#;
        assert_eq!(with(alone, &entry()), Err(Unusable::Standalone));
        assert_eq!(without(alone), Ok(None));
        assert!(stands_alone(alone) && stands_alone(r#"{"type":"dmvpn-cni","ipam":{"type":"x"}}"#));
        assert!(!stands_alone(PRETTY) && !stands_alone(r#"{"type":"dmvpn-cni"}"#) && !stands_alone("{"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(matches!(with("{", &entry()), Err(Unusable::Json(_))));
        assert_eq!(with(r#"{"type":"bridge"}"#, &entry()), Err(Unusable::NoList));
        assert_eq!(with(r#"{"plugins":{}}"#, &entry()), Err(Unusable::NoList));
        assert_eq!(with(r#"{"plugins":[]}"#, &entry()), Err(Unusable::Empty));
        assert_eq!(with(r#"{"plugins":[{"type":"dmvpn-cni"}]}"#, &entry()), Err(Unusable::Empty));
        assert_eq!(with("[]", &entry()), Err(Unusable::NoList));
    }

    #[test]
    fn a_key_that_is_written_otherwise_is_found() {
        let text = r#"{"plug\u0069ns":[{"type":"bridge"}]}"#;
        assert!(with(text, &entry()).unwrap().unwrap().contains(PLUGIN));
    }
}
