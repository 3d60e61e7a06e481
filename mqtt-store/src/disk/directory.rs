//! The directory of a store: who may use it, what is in it, and how one database takes the place of
//! another without a moment in which a crash would lose both.

use crate::{StoreError, StoreErrorKind};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_64;

/// The format that this version writes. Of format 1, which has no records of shards but the first, it reads all.
const FORMAT: u32 = 2;
/// So many databases that were set aside are kept.
const ASIDE: usize = 3;

/// A process that ends, or starts another, may have the lock for a moment longer.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// A directory that is locked by this process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    // The system unlocks it when the process ends, however it ends.
    _lock: File,
}

impl Directory {
    /// Makes the directory if need be, readable for its owner only, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let explain = |doing: &str, error: &io::Error| StoreError::io(path, doing, error);
        make_private(path).map_err(|error| explain("making its directory", &error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|error| explain("opening its lock file", &error))?;
        let mut attempts = LOCK_ATTEMPTS;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if attempts > 0 => {
                    attempts -= 1;
                    std::thread::sleep(LOCK_AGAIN);
                }
                Err(TryLockError::WouldBlock) => {
                    let cause = "another process has it";
                    return Err(StoreError::new(StoreErrorKind::Locked, path, "locking it", cause));
                }
                Err(TryLockError::Error(error)) => return Err(explain("locking it", &error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// A database that is being made. Of no worth after a crash.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join("store.new")
    }

    /// What was salvaged, complete, for the moment in which the damaged database is set aside.
    fn salvaged(&self) -> PathBuf {
        self.path.join("store.salvaged")
    }

    /// Makes an unfinished database, with nothing in it but its format. What was left of an earlier
    /// one is removed.
    pub(super) fn begin(&self) -> Result<(PathBuf, Format), StoreError> {
        let path = self.unfinished();
        let format = Format::draw().map_err(|error| self.explain("drawing a secret", &error))?;
        let made = remove(&path).and_then(|()| make_private(&path)).and_then(|()| format.write(&path));
        made.map_err(|error| self.explain("making a database", &error))?;
        Ok((path, format))
    }

    /// Ends what a crash interrupted. `true` if that was a database being set aside.
    pub(super) fn settle(&self) -> Result<bool, StoreError> {
        let (store, salvaged) = (self.store(), self.salvaged());
        let settled = remove(&self.unfinished()).and_then(|()| {
            if !salvaged.exists() {
                Ok(false)
            } else if store.exists() {
                // Not set aside yet: it is salvaged again.
                remove(&salvaged).map(|()| false)
            } else {
                fs::rename(&salvaged, &store)?;
                sync(&self.path).map(|()| true)
            }
        });
        settled.map_err(|error| self.explain("ending what was interrupted", &error))
    }

    /// Makes the unfinished database the one.
    pub(super) fn finish(&self) -> Result<(), StoreError> {
        let unfinished = self.unfinished();
        sync(&unfinished)
            .and_then(|()| fs::rename(unfinished, self.store()))
            .and_then(|()| sync(&self.path))
            .map_err(|error| self.explain("making a database", &error))
    }

    /// Whether there is room for one more that is set aside.
    pub(super) fn has_room_aside(&self) -> Result<(), StoreError> {
        let explain = |error: io::Error| self.explain("listing its directory", &error);
        let mut aside = 0;
        for entry in fs::read_dir(&self.path).map_err(explain)? {
            let name = entry.map_err(explain)?.file_name();
            aside += usize::from(name.to_string_lossy().starts_with("store.damaged-"));
        }
        if aside < ASIDE {
            return Ok(());
        }
        let cause = format!("it is damaged, and {aside} were set aside before");
        Err(StoreError::new(StoreErrorKind::Damaged, &self.path, "opening it", cause)
            .with_remedy("find out why, and remove those store.damaged-* that are not needed any more"))
    }

    /// Puts the unfinished database in the place of the damaged one, which is kept under another
    /// name.
    pub(super) fn replace(&self) -> Result<PathBuf, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = (now..)
            .map(|seconds| self.path.join(format!("store.damaged-{seconds}")))
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.path.join("store.damaged"));
        let (unfinished, salvaged) = (self.unfinished(), self.salvaged());
        sync(&unfinished)
            .and_then(|()| fs::rename(unfinished, &salvaged))
            .and_then(|()| sync(&self.path))
            .and_then(|()| fs::rename(self.store(), &aside))
            .and_then(|()| fs::rename(salvaged, self.store()))
            .and_then(|()| sync(&self.path))
            .map_err(|error| self.explain("setting the damaged database aside", &error))?;
        Ok(aside)
    }

    pub(super) fn explain(&self, doing: &str, error: &io::Error) -> StoreError {
        StoreError::io(&self.path, doing, error)
    }

    /// Bytes that all in here takes up.
    pub(super) fn space(&self) -> u64 {
        space(&self.path)
    }
}

/// The file `format` of a database: what it is, and the secret in its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    number: u32,
    pub(super) secret: [u8; 16],
}

/// What is in a file `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    This(Format),
    Newer(u32),
    /// Its checksum is wrong.
    Damaged,
}

impl Format {
    /// Of a database whose file cannot be read.
    pub(super) const UNKNOWN: Self = Self { number: FORMAT, secret: [0; 16] };

    fn draw() -> io::Result<Self> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(io::Error::from)?;
        Ok(Self { number: FORMAT, secret })
    }

    /// Makes the file say that this version wrote the database, so that an earlier one does not take its records for
    /// damage.
    pub(super) fn renew(&self, directory: &Directory) -> Result<(), StoreError> {
        if self.number == FORMAT {
            return Ok(());
        }
        let store = directory.store();
        let renewed = remove_file(&store.join("format.new"))
            .and_then(|()| self.write_as(&store.join("format.new")))
            .and_then(|()| fs::rename(store.join("format.new"), store.join("format")))
            .and_then(|()| sync(&store));
        renewed.map_err(|error| directory.explain("writing its format", &error))
    }

    fn text(number: u32, secret: &str) -> String {
        let body = format!("mqtt-store {number}\n{secret}\n");
        let sum = xxh3_64(body.as_bytes());
        format!("{body}{sum:016x}\n")
    }

    fn write(&self, store: &Path) -> io::Result<()> {
        self.write_as(&store.join("format"))
    }

    fn write_as(&self, path: &Path) -> io::Result<()> {
        let text = Self::text(FORMAT, &format!("{:032x}", u128::from_be_bytes(self.secret)));
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    pub(super) fn read(store: &Path) -> io::Result<Known> {
        let bytes = fs::read(store.join("format"))?;
        Ok(std::str::from_utf8(&bytes).ok().and_then(Self::parse).unwrap_or(Known::Damaged))
    }

    fn parse(text: &str) -> Option<Known> {
        let mut lines = text.lines();
        let number = lines.next()?.strip_prefix("mqtt-store ")?.parse().ok()?;
        let secret = lines.next()?;
        // A newer format keeps the form of this file.
        if Self::text(number, secret) != text {
            return None;
        }
        if number > FORMAT {
            return Some(Known::Newer(number));
        }
        let secret = u128::from_str_radix(secret, 16).ok()?.to_be_bytes();
        Some(Known::This(Self { number, secret }))
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what was made, renamed or removed in a directory survive a loss of power.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and the system sees to it.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn space(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return occupied(&metadata);
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    // Three levels deep, of our own making.
    entries.map(|entry| space(&entry.path())).sum()
}

/// What a file takes up: a journal is made longer than what is in it.
#[cfg(unix)]
pub(super) fn occupied(metadata: &fs::Metadata) -> u64 {
    // The unit that POSIX has for it.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
pub(super) fn occupied(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_this_one_or_newer_or_damaged() {
        let secret = "000102030405060708090a0b0c0d0e0f";
        let text = Format::text(FORMAT, secret);
        let Some(Known::This(format)) = Format::parse(&text) else { panic!("{text}") };
        assert_eq!(format.secret, std::array::from_fn(|i| i as u8));
        let earlier = Format::parse(&Format::text(1, secret));
        assert_eq!(earlier, Some(Known::This(Format { number: 1, ..format })));
        assert_eq!(Format::parse(&Format::text(7, "anything")), Some(Known::Newer(7)));
        for bit in 0..text.len() * 8 {
            let mut bad = text.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            let parsed = std::str::from_utf8(&bad).ok().and_then(Format::parse);
            assert_eq!(parsed, None, "bit {bit}");
        }
    }
}
