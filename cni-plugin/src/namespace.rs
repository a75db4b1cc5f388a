//! Network namespaces: the pod's, entered by a thread of its own.

use crate::error::Error;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

/// An open network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    path: String,
}

impl Namespace {
    /// Opens it. It must not be ours: then the node itself would be changed.
    pub(crate) fn open(path: &str) -> Result<Self, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::UnknownContainer(path.to_owned()));
            }
            Err(e) => return Err(Error::Io { what: format!("open {path}"), why: e.to_string() }),
        };
        let namespace = Self { file, path: path.to_owned() };
        if namespace.is(&Self::own()?) {
            return Err(Error::Environment(format!("CNI_NETNS={path} is the node's own network namespace")));
        }
        Ok(namespace)
    }

    /// The one this process is in.
    pub(crate) fn own() -> Result<Self, Error> {
        let path = "/proc/self/ns/net";
        let file =
            File::open(path).map_err(|e| Error::Io { what: format!("open {path}"), why: e.to_string() })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Runs `task` on a thread inside it.
    pub(crate) fn within<T: Send>(&self, task: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                    |e| {
                        // A file that is no namespace: what `ip netns del` leaves when something still holds the name.
                        match e {
                            rustix::io::Errno::INVAL => Error::UnknownContainer(self.path.clone()),
                            e => Error::Kernel { what: format!("enter {}", self.path), why: e.to_string() },
                        }
                    },
                )?;
                task()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// For messages to the kernel that name a namespace.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    fn is(&self, other: &Self) -> bool {
        match (self.file.metadata(), other.file.metadata()) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_gone_is_code_3() {
        assert_eq!(Namespace::open("/run/netns/never-was").unwrap_err().code(), 3);
    }

    #[test]
    fn the_nodes_own_namespace_is_refused() {
        assert_eq!(Namespace::open("/proc/self/ns/net").unwrap_err().code(), 4);
    }
}
