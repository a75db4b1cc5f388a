//! The pods of this node, kept: in memory, in the state directory, and in the kernel.

use super::events::Missed;
use super::facts::{Facts, Source};
use super::firewall::{self, Rules};
use super::notes;
use super::pods::{Memory, PodName, Pods};
use crate::disturbances;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, process};
use tokio::sync::mpsc;

/// The kernel's table is looked after so often: other firewalls are known to flush everything.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is known, and what was made of it.
pub struct Registry {
    pods: Mutex<Pods>,
    /// Held while the kernel or the file changes.
    done: tokio::sync::Mutex<Done>,
    source: Source,
    file: PathBuf,
    run_dir: PathBuf,
    missed: mpsc::Sender<Missed>,
}

#[derive(Default)]
struct Done {
    rules: Option<Rules>,
    saved: String,
}

impl Registry {
    /// Takes up what an agent before this one left in `state_dir`.
    #[must_use]
    pub fn open(state_dir: &Path, run_dir: &Path, source: Source, missed: mpsc::Sender<Missed>) -> Self {
        let file = state_dir.join("pods.json");
        let memory = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, file = %file.display(), "what was known of pods can't be read; they are told again");
                Memory::default()
            }),
            Err(_) => Memory::default(),
        };
        Self {
            pods: Mutex::new(Pods::recall(memory)),
            done: tokio::sync::Mutex::default(),
            source,
            file,
            run_dir: run_dir.to_owned(),
            missed,
        }
    }

    /// What the tunnels mean for pods.
    pub async fn facts(&self) -> Facts {
        self.source.facts().await
    }

    /// Looks at the pods.
    pub fn read<T>(&self, look: impl FnOnce(&Pods) -> T) -> T {
        look(&self.pods.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes them, and brings kernel and file after. What the kernel refuses is the caller's to tell; a file that can't
    /// be written is a warning, as everything goes on without it.
    pub async fn change<T>(&self, change: impl FnOnce(&mut Pods) -> T) -> io::Result<T> {
        let result = change(&mut self.pods.lock().unwrap_or_else(PoisonError::into_inner));
        self.apply().await?;
        Ok(result)
    }

    /// What is wrong with the kernel's table, in words.
    pub async fn problem(&self) -> Option<String> {
        let done = self.done.lock().await;
        let missing = done.rules.as_ref().is_some_and(|rules| firewall::is_missing(rules).unwrap_or(true));
        missing.then(|| format!("the nftables table {} is missing", firewall::TABLE))
    }

    /// Makes the kernel and the file as they should be.
    pub async fn apply(&self) -> io::Result<()> {
        let mut done = self.done.lock().await;
        let (excluded, memory) = self.read(|pods| (pods.excluded(), pods.memory()));
        let rules = Rules { tunnels: self.source.interfaces(), excluded };
        if done.rules.as_ref() != Some(&rules) {
            firewall::apply(&rules)?;
            done.rules = Some(rules);
        }
        let text = serde_json::to_string(&memory).map_err(io::Error::other)?;
        if done.saved != text {
            match write(&self.file, &text) {
                Ok(()) => done.saved = text,
                Err(error) => {
                    tracing::warn!(%error, file = %self.file.display(), "cannot keep what is known of pods");
                }
            }
        }
        Ok(())
    }

    /// Takes up what plugins left while no agent was there, and tells of pods that were attached meanwhile.
    pub async fn take_notes(&self) {
        let notes = notes::take(&self.run_dir);
        if notes.is_empty() {
            return;
        }
        let taken = self.change(|pods| notes.iter().filter_map(|note| note.apply(pods)).collect()).await;
        let taken: Vec<Missed> = taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot treat pods as they want that were attached while the agent was away");
            Vec::new()
        });
        for missed in taken {
            let Missed { pod: PodName { namespace, name }, why, .. } = &missed;
            tracing::warn!(namespace, pod = name, why, "the pod started while the agent was away");
            // Without an API server nobody listens, and more than it holds is not worth telling.
            let _ = self.missed.try_send(missed);
        }
    }

    /// Follows the tunnels, and puts the table back when somebody removed it.
    pub async fn watch(&self) -> io::Result<()> {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            let mut changed = std::pin::pin!(self.source.changed());
            changed.as_mut().enable();
            self.source.refresh().await;
            {
                let mut done = self.done.lock().await;
                if done.rules.as_ref().is_some_and(|rules| firewall::is_missing(rules).unwrap_or(false)) {
                    tracing::warn!(
                        "somebody removed the nftables table {}: putting it back",
                        firewall::TABLE
                    );
                    self.source.disturbances().note(disturbances::TABLE);
                    done.rules = None;
                }
            }
            self.take_notes().await;
            if let Err(error) = self.apply().await {
                tracing::warn!(%error, "cannot keep pods from the overlay that don't want it");
            }
            tokio::select! {
                _ = interval.tick() => {}
                () = changed => {}
            }
        }
    }
}

/// Whole or not at all.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let fresh = file.with_extension(format!("new-{}", process::id()));
    let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, file));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}
