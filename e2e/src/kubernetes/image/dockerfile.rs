//! The lab has no builder, so its image is made otherwise than users'. What both must have is compared here: programs,
//! paths, users, and what the chart's pods run.

use super::{ENTRYPOINT, PROGRAMS};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a build stage makes.
#[derive(Clone, Debug, Default)]
struct Stage {
    files: BTreeSet<String>,
    entrypoint: String,
    user: String,
    packages: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The Dockerfile's instructions, one a line, without comments.
fn instructions() -> Vec<String> {
    let lines = read("Dockerfile");
    let lines: Vec<&str> = lines.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n").replace("\\\n", " ").lines().map(str::to_owned).collect()
}

fn stages() -> BTreeMap<String, Stage> {
    let mut stages = BTreeMap::<String, Stage>::new();
    let mut name = String::new();
    for line in instructions() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["FROM", base, "AS", new] => {
                name = new.to_owned();
                let before = stages.get(base).cloned().unwrap_or_default();
                stages.insert(name.clone(), before);
            }
            ["COPY", "--from=build", ref files @ .., to] => {
                let stage = stages.get_mut(&name).expect("COPY in a stage");
                for file in files {
                    let name = file.rsplit('/').next().expect("a name");
                    let path = if to.ends_with('/') { format!("{to}{name}") } else { to.to_owned() };
                    stage.files.insert(path);
                }
            }
            ["USER", user] => stages.get_mut(&name).expect("a stage").user = user.to_owned(),
            ["ENTRYPOINT", program] => {
                let program = program.trim_matches(['[', ']', '"']).to_owned();
                stages.get_mut(&name).expect("a stage").entrypoint = program;
            }
            ["RUN", ..] => stages.get_mut(&name).expect("a stage").packages.push_str(&line),
            _ => {}
        }
    }
    stages
}

#[test]
fn the_image_that_users_build_has_what_the_labs_has() {
    let stages = stages();
    let default = &stages["kube-dmvpn"];
    let programs = PROGRAMS.map(|name| format!("/usr/bin/{name}"));
    let there: BTreeSet<&String> = default.files.iter().filter(|f| f.starts_with("/usr/bin/")).collect();
    assert_eq!(there, programs.iter().collect());
    assert_eq!(default.entrypoint, ENTRYPOINT);
    assert!(default.packages.contains("nftables"), "nft is in the lab's");
    assert!(default.user.is_empty(), "agents are root; the chart says which user others are");
    let last = instructions().into_iter().rfind(|line| line.starts_with("FROM")).unwrap_or_default();
    assert!(last.ends_with("AS kube-dmvpn"), "what is built by default is {last}");
}

#[test]
fn everything_that_is_copied_is_built() {
    let build = &stages()["build"].packages;
    let members: String = fs::read_dir(root())
        .expect("the workspace")
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("Cargo.toml")).ok())
        .collect();
    let words: Vec<&str> = build.split_whitespace().collect();
    let packages = words.windows(2).filter(|pair| pair[0] == "-p").map(|pair| pair[1].trim_end_matches(';'));
    let packages: BTreeSet<&str> = packages.collect();
    for package in &packages {
        assert!(members.contains(&format!("name = \"{package}\"")), "there is no package {package}");
    }
    for program in PROGRAMS {
        // dmvpn-datapath is the dataplane's.
        let package = if program == "dmvpn-datapath" { "dmvpn-dataplane" } else { program };
        assert!(packages.contains(package), "{program} is not built");
        assert!(build.contains(&format!("release/{program}")), "{program} is not kept");
    }
    // It runs on nodes with whatever C library they have.
    let (_, after) = build.split_once("+crt-static").expect("a static build");
    assert!(after.contains("-p dmvpn-cni"), "the CNI plugin is not static");
}

#[test]
fn every_command_of_the_chart_is_in_the_image_of_its_pod() {
    let stages = stages();
    let folder = root().join("charts/kube-dmvpn/templates");
    let tests = folder.join("tests");
    let mut seen = 0;
    for file in [folder, tests].iter().flat_map(|folder| fs::read_dir(folder).expect("templates")).flatten() {
        let Ok(text) = fs::read_to_string(file.path()) else { continue };
        let mut stage = "";
        for line in text.lines() {
            for (value, name) in [(".Values.operator.image", "operator"), (".Values.agent.image", "agent")] {
                if line.contains("kube-dmvpn.image") && line.contains(value) {
                    stage = name;
                }
            }
            let Some((_, command)) = line.split_once("command: [/") else { continue };
            let program = format!("/{}", command.split([',', ']']).next().unwrap_or_default());
            let image = stages.get(stage).unwrap_or_else(|| panic!("no image before {line}"));
            assert!(image.files.contains(&program), "{program} is not in {stage}: {:?}", file.path());
            seen += 1;
        }
        if text.contains("runAsNonRoot: true") {
            let user = stages["operator"].user.split(':').next().unwrap_or_default().to_owned();
            assert!(text.contains(&format!("runAsUser: {user}\n")), "{:?}", file.path());
        }
    }
    assert!(seen >= 8, "only {seen} commands were found");
}
