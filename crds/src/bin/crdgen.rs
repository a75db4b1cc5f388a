//! Prints the CRDs as YAML, or writes them and the field reference where they belong.
//!
//! ```text
//! crdgen                  all CRDs as one YAML stream
//! crdgen --reference      the field reference (Markdown)
//! crdgen --write ROOT     writes ROOT/charts/kube-dmvpn/files/crds/*.yaml and ROOT/docs/reference.md
//! ```

use dmvpn_crds::{reference, schema};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => schema::crds().iter().try_for_each(|crd| print(&format!("---\n{}", crd.yaml()?))),
        ["--reference"] => print(&reference::markdown()),
        ["--write", root] => write(Path::new(root)),
        _ => Err("usage: crdgen [--reference | --write ROOT]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn print(text: &str) -> Result<(), Error> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn write(root: &Path) -> Result<(), Error> {
    for (path, content) in schema::files()? {
        let path: PathBuf = root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, content)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
