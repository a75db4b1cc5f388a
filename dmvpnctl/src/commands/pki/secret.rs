//! The same as Secrets.

use super::folder::Folder;
use crate::error::Error;
use std::fmt::Write as _;
use std::io::Write;

/// Writes `secret.yaml` if a name for it was given.
pub(super) fn offer(out: &mut impl Write, folder: &Folder, name: Option<&str>) -> Result<(), Error> {
    let Some(name) = name else { return Ok(()) };
    let trust = format!("{name}-trust");
    let text = format!(
        "{}---\n{}",
        secret(name, &[("tls.crt", &folder.read("tls.crt")?), ("tls.key", &folder.read("tls.key")?)]),
        secret(&trust, &[("ca.crt", &folder.read("ca.crt")?)])
    );
    folder.write_private("secret.yaml", &text)?;
    writeln!(
        out,
        "Wrote {} with the key in it: `kubectl -n NAMESPACE apply -f` it, or put it into the folder of manifests, and delete it.\n\
         It makes the Secrets {name} (tls.crt, tls.key) and {trust} (ca.crt, for `trust`).",
        folder.path("secret.yaml").display()
    )?;
    Ok(())
}

fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let name = serde_json::Value::from(name); // A JSON string is a YAML string.
    let mut text = format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\nstringData:\n");
    for (entry, value) in entries {
        let _ = writeln!(text, "  {entry}: |");
        for line in value.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}
