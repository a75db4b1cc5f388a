//! Container images made of files of this machine, as archives that containerd imports: no builder and no registry.

use crate::agent::binary;
use crate::error::{Error, Result};
use crate::netns;
use crate::topology::Lab;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[cfg(test)]
#[path = "image/dockerfile.rs"]
mod dockerfile;

/// The image of this project: what the Dockerfile makes, from the same binaries.
pub const OURS: &str = "localhost/kube-dmvpn:dev";

/// The programs in it.
const PROGRAMS: [&str; 5] = ["dmvpn-operator", "dmvpn-agent", "dmvpn-datapath", "dmvpn-cni", "dmvpnctl"];
/// What runs when nobody says what.
const ENTRYPOINT: &str = "/usr/bin/dmvpn-agent";

/// An image of one layer.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    files: BTreeMap<String, PathBuf>,
    links: BTreeMap<String, String>,
}

impl Image {
    /// An empty image of this name and tag.
    #[must_use]
    pub fn new(name: &str, entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(|&word| word.to_owned()).collect();
        Self { name: name.to_owned(), entrypoint, files: BTreeMap::new(), links: BTreeMap::new() }
    }

    /// This project's programs, nft, and the shared libraries they need.
    pub fn ours() -> Result<Self> {
        let mut image = Self::new(OURS, &[ENTRYPOINT]);
        for name in PROGRAMS {
            let program = binary(name)?;
            image.add_libraries(&program)?;
            image.files.insert(format!("/usr/bin/{name}"), stripped(&program)?);
        }
        let nft = PathBuf::from("/usr/sbin/nft");
        image.add_libraries(&nft)?;
        image.files.insert(nft.display().to_string(), nft);
        Ok(image)
    }

    fn add_libraries(&mut self, program: &Path) -> Result {
        let libraries = libraries(program)?.into_iter();
        self.files.extend(libraries.map(|library| (library.display().to_string(), library)));
        Ok(())
    }

    /// Under another name and tag.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// busybox with all that it can do, for pods that talk.
    fn busybox() -> Result<Self> {
        let program = PathBuf::from("/bin/busybox");
        let mut image = Self::new("localhost/busybox:dev", &["/bin/sh"]);
        let list = netns::run(Command::new(&program).arg("--list"))
            .map_err(|e| Error::other(format!("busybox-static is needed (make kubernetes-setup): {e}")))?;
        for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
            image.links.insert(format!("/bin/{name}"), "busybox".to_owned());
        }
        image.files.insert("/bin/busybox".to_owned(), program);
        Ok(image)
    }

    /// What holds a pod's namespaces.
    fn pause() -> Self {
        let mut image = Self::new("localhost/pause:dev", &["/bin/busybox", "sleep", "2147483647"]);
        image.files.insert("/bin/busybox".to_owned(), "/bin/busybox".into());
        image
    }

    /// Writes the archive into a folder, and returns its path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let failed = |what: &Path| Error::io(format!("write {}", what.display()));
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (layer, draft) = (folder.join(format!(".layer{number}")), folder.join(format!(".draft{number}")));
        let path = folder.join(format!("{}.tar", self.name.replace(['/', ':'], "-")));
        self.write_layer(&layer).map_err(failed(&layer))?;
        self.write_archive(&layer, &draft).map_err(failed(&draft))?;
        fs::remove_file(&layer).map_err(failed(&layer))?;
        fs::rename(&draft, &path).map_err(failed(&path))?;
        Ok(path)
    }

    fn write_layer(&self, path: &Path) -> std::io::Result<()> {
        let mut layer = tar::Builder::new(File::create(path)?);
        for (name, source) in &self.files {
            let mut file = File::open(source)?;
            let mut header = header(0o755, file.metadata()?.len());
            layer.append_data(&mut header, name.trim_start_matches('/'), &mut file)?;
        }
        for (name, to) in &self.links {
            let mut header = header(0o777, 0);
            header.set_entry_type(tar::EntryType::Symlink);
            layer.append_link(&mut header, name.trim_start_matches('/'), to)?;
        }
        let mut header = header(0o1777, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer.append_data(&mut header, "tmp", std::io::empty())?;
        layer.into_inner()?.flush()
    }

    /// The format of `docker save`: a layer, a configuration, and a manifest that names both.
    fn write_archive(&self, layer: &Path, path: &Path) -> std::io::Result<()> {
        let mut sum = Sha256::new();
        std::io::copy(&mut File::open(layer)?, &mut HashInto(&mut sum))?;
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&sum.finalize()))]},
            "history": [{"created_by": "the lab"}],
        })
        .to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        let manifest =
            json!([{"Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"]}]).to_string();
        let mut archive = tar::Builder::new(File::create(path)?);
        let mut file = File::open(layer)?;
        archive.append_data(&mut header(0o644, file.metadata()?.len()), "layer.tar", &mut file)?;
        for (name, text) in [(config_name.as_str(), &config), ("manifest.json", &manifest)] {
            archive.append_data(&mut header(0o644, text.len() as u64), name, text.as_bytes())?;
        }
        archive.into_inner()?.flush()
    }
}

/// The images that every cluster needs, in the lab's folder of images; whatever else is put there before a node boots
/// is known to it too.
pub(super) fn basics(lab: &Lab) -> Result<PathBuf> {
    let folder = folder(lab)?;
    for image in [Image::pause(), Image::busybox()?] {
        image.write(&folder)?;
    }
    Ok(folder)
}

/// The lab's folder of images.
pub fn folder(lab: &Lab) -> Result<PathBuf> {
    let folder = lab.directory().join("images");
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    Ok(folder)
}

/// The shared libraries a program is linked with, its loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = netns::run(Command::new("ldd").arg(program))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "libc.so.6 => /lib/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

/// The program without its symbols, kept beside it: nodes shall not carry a debug build's weight.
fn stripped(program: &Path) -> Result<PathBuf> {
    let folder = program.with_file_name("stripped");
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    let to = folder.join(program.file_name().unwrap_or_default());
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if modified(&to) <= modified(program) {
        let draft = folder.join(format!(".draft-{}", std::process::id()));
        netns::run(Command::new("strip").arg("-o").arg(&draft).arg(program))?;
        fs::rename(&draft, &to).map_err(Error::io(format!("write {}", to.display())))?;
    }
    Ok(to)
}

/// Root's, and of no particular time, so that the same files make the same image.
fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// As Go calls it.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

struct HashInto<'a>(&'a mut Sha256);

impl Write for HashInto<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
