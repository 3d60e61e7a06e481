use std::io;
use std::path::{Path, PathBuf};

/// What kind of trouble a store is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The disk, or the share of it that this program may use, is full.
    DiskFull,
    /// The disk failed, or the system did for it.
    Io,
    /// Another process has the store.
    Locked,
    /// A newer version of this program wrote the store.
    NewerFormat,
    /// The system does not let this program read or write the files.
    Permission,
    /// No more files can be opened.
    Descriptors,
    /// What is on the disk is not what was written: a checksum proves it.
    Damaged,
    /// Groups arrived out of order: a mistake of the program that passes them on.
    Order,
    /// The store panicked, and its thread ended with it.
    Panicked,
}

/// A store cannot do what it should.
///
/// The text names the store, what it was doing, what happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store {}: {doing}: {cause}; {remedy}", .path.display())]
pub struct StoreError {
    kind: StoreErrorKind,
    path: PathBuf,
    doing: String,
    cause: String,
    remedy: String,
}

impl StoreError {
    /// An error of the store at `path` (for one without a path, its name), which could not go on with
    /// `doing` because of `cause`. The remedy is the usual one of `kind`.
    pub fn new(
        kind: StoreErrorKind,
        path: impl AsRef<Path>,
        doing: impl Into<String>,
        cause: impl ToString,
    ) -> Self {
        let remedy = match kind {
            StoreErrorKind::DiskFull => "make room on that disk",
            StoreErrorKind::Io => "see the system's log about that disk",
            StoreErrorKind::Locked => "stop the other process, or name another directory",
            StoreErrorKind::NewerFormat => "run the version that wrote it, or a newer one",
            StoreErrorKind::Permission => "let the user that runs this program read and write there",
            StoreErrorKind::Descriptors => "raise the limit of open files (ulimit -n)",
            StoreErrorKind::Damaged => "restore it from a backup, or move it away to start empty",
            StoreErrorKind::Order => "pass on every group, in order",
            StoreErrorKind::Panicked => "start the program again",
        };
        Self {
            kind,
            path: path.as_ref().to_owned(),
            doing: doing.into(),
            cause: cause.to_string(),
            remedy: remedy.to_owned(),
        }
    }

    /// What the system said when the store at `path` tried to go on with `doing`.
    #[must_use]
    pub fn io(path: &Path, doing: impl Into<String>, error: &io::Error) -> Self {
        // Values that every Unix shares; where the system has others, the kind says it.
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreErrorKind::DiskFull
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Permission,
            _ if cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
                StoreErrorKind::Descriptors
            }
            _ => StoreErrorKind::Io,
        };
        Self::new(kind, path, doing, error)
    }

    /// The same with another remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Where the store is, or its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_place_cause_and_remedy() {
        let io = io::Error::from(io::ErrorKind::StorageFull);
        let error = StoreError::io(Path::new("/var/lib/mqtt"), "writing a batch", &io);
        assert_eq!(error.kind(), StoreErrorKind::DiskFull);
        assert_eq!(
            error.to_string(),
            "store /var/lib/mqtt: writing a batch: no storage space; make room on that disk"
        );
    }
}
