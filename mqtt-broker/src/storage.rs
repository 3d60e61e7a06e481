//! Where sessions and messages are kept.

use crate::config::DurabilityLevel;
use mqtt_session::Durability;
use mqtt_store::{FjallOptions, FjallStore, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where sessions and messages are kept: a directory, or `none`, in memory only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Data {
    /// Nowhere: they end with the broker.
    None,
    /// In this directory.
    Directory(PathBuf),
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        if text == "none" { Self::None } else { Self::Directory(text.into()) }
    }
}

impl FromStr for Data {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl From<Data> for String {
    fn from(data: Data) -> Self {
        data.to_string()
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

impl Data {
    /// The directory for a program that was told none: that of the service manager, or the place where
    /// this platform keeps what programs keep for a user.
    #[must_use]
    pub fn of_platform() -> Self {
        Self::Directory(place(|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(Into::into)
        }))
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    // Of systemd's StateDirectory=.
    if let Some(directory) = variable("STATE_DIRECTORY") {
        return directory;
    }
    let home = || variable("HOME");
    let shared = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")))
    };
    shared.map_or_else(|| PathBuf::from("mqtt-data"), |shared| shared.join("mqtt"))
}

/// What an acknowledgement means, and where what it is about is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) directory: PathBuf,
    pub(crate) durability: Durability,
}

impl Kept {
    /// `None` if nothing is kept.
    pub(crate) fn new(data: Data, level: DurabilityLevel) -> Option<Self> {
        let durability = match level {
            DurabilityLevel::Synced => Durability::Synced,
            DurabilityLevel::Written => Durability::Written,
            DurabilityLevel::Off => return None,
        };
        match data {
            Data::None => None,
            Data::Directory(directory) => Some(Self { directory, durability }),
        }
    }

    pub(crate) fn summary(kept: Option<&Self>) -> String {
        let Some(Self { directory, durability }) = kept else {
            return "Sessions and messages are kept in memory only, and end with this process. --data DIR \
                    keeps them."
                .to_owned();
        };
        let means = match durability {
            Durability::Synced => "what is acknowledged is on the disk",
            _ => "what is acknowledged survives this process, but not a loss of power",
        };
        format!("Sessions and messages are kept in {}: {means}.", directory.display())
    }
}

/// Opens the store, and says what is worth saying of it.
pub(crate) fn open(directory: &Path) -> Result<Box<dyn Store>, StoreError> {
    let options = FjallOptions::default().on_progress(|progress| {
        let doing = if progress.salvaging { "Salvaging" } else { "Restoring" };
        tracing::info!("{doing}: {} records, {} MiB so far.", progress.records, progress.bytes >> 20);
    });
    let opened = FjallStore::open(directory, options)?;
    if let Some(salvage) = &opened.salvaged {
        tracing::error!("{salvage}.");
    }
    Ok(Box::new(opened.store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_directory_and_a_user_a_place_at_home() {
        let with = |set: &'static [(&'static str, &'static str)]| {
            place(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        assert_eq!(with(&[("STATE_DIRECTORY", "/var/lib/mqtt"), ("HOME", "/h")]), Path::new("/var/lib/mqtt"));
        assert_eq!(with(&[]), Path::new("mqtt-data"));
        if cfg!(target_os = "linux") {
            assert_eq!(with(&[("HOME", "/h")]), Path::new("/h/.local/share/mqtt"));
            assert_eq!(with(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), Path::new("/d/mqtt"));
        }
    }

    #[test]
    fn nothing_is_kept_if_one_of_both_says_so() {
        let dir = || Data::from("d".to_owned());
        assert_eq!(Kept::new(Data::from("none".to_owned()), DurabilityLevel::Synced), None);
        assert_eq!(Kept::new(dir(), DurabilityLevel::Off), None);
        assert!(Kept::new(dir(), DurabilityLevel::Written).is_some());
    }
}
