//! The store on disk: fjall, and what it takes to trust it.
//!
//! `layout` is what a record is, `batch` what of a commit has to be written, `engine` the database,
//! `directory` its place, `journal` and `verify` the proof that its files are sound, `salvage` what
//! is done when they are not, `tidy` what is done when nothing else is.

mod batch;
mod directory;
mod engine;
mod journal;
mod layout;
mod salvage;
mod tidy;
mod verify;

use crate::sift::Sift;
use crate::{Loaded, Store, StoreError, StoreErrorKind};
use batch::Known;
use directory::{Directory, Format, Known as KnownFormat};
use engine::Engine;
use layout::{decode, owner, shards_key};
use mqtt_session::{StoreGroup, StoreOp};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidy::Tidy;
use verify::{Finding, Tail};

const MIB: u64 = 1 << 20;
/// How many records lie between two calls of the progress function.
const PROGRESS_EVERY: u64 = 100_000;

/// Settings of a [`FjallStore`]. The defaults suit a small computer: some tens of megabytes of memory
/// while there is much to write, and on disk up to 80 MB of journal beside the data.
#[derive(Clone)]
#[non_exhaustive]
pub struct FjallOptions {
    /// What is gathered before it is written as a table, in bytes of records; in memory small ones take
    /// up several times as much. Up to three times this is there while the disk does not keep up.
    /// 4 MiB by default. Fixed when a store is made.
    pub memtable_bytes: u64,
    /// Size of a table on disk, in bytes. 16 MiB by default. Fixed when a store is made.
    pub table_bytes: u64,
    /// Cache of blocks, in bytes. Only loading reads, once, in order. 1 MiB by default.
    pub cache_bytes: u64,
    /// How many table files are open at a time, at most; at least 8. 32 by default.
    pub open_files: usize,
    /// A journal that takes up more than this is given back when nothing else is to be done, in bytes.
    /// 4 MiB by default.
    pub journal_bytes: u64,
    /// How long nothing may have been written before that: the database is closed for a moment. 50 ms
    /// by default.
    pub quiet: Duration,
    /// So many records one step of sweeping looks at. 1,000 by default.
    pub sweep_step: usize,
    progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 4 * MIB,
            table_bytes: 16 * MIB,
            cache_bytes: MIB,
            open_files: 32,
            journal_bytes: 4 * MIB,
            quiet: Duration::from_millis(50),
            sweep_step: 1000,
            progress: None,
        }
    }
}

impl fmt::Debug for FjallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallOptions")
            .field("memtable_bytes", &self.memtable_bytes)
            .field("table_bytes", &self.table_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("open_files", &self.open_files)
            .field("journal_bytes", &self.journal_bytes)
            .field("quiet", &self.quiet)
            .field("sweep_step", &self.sweep_step)
            .finish_non_exhaustive()
    }
}

impl FjallOptions {
    /// Has `report` called now and then while a large store is loaded or salvaged.
    #[must_use]
    pub fn on_progress(self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { progress: Some(Arc::new(report)), ..self }
    }

    fn report(&self, salvaging: bool, records: u64, bytes: u64) {
        if let Some(report) = &self.progress
            && records.is_multiple_of(PROGRESS_EVERY)
        {
            report(Progress { salvaging, records, bytes });
        }
    }
}

/// How far loading or salvaging is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether a damaged store is being salvaged; else one is being loaded.
    pub salvaging: bool,
    /// Records so far.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What [`FjallStore::open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: FjallStore,
    /// What was done if it was damaged: worth an error in the log.
    pub salvaged: Option<Salvage>,
}

/// A damaged store was set aside, and what was readable taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// What was damaged.
    pub damage: String,
    /// Where the damaged files are now.
    pub aside: PathBuf,
    /// Records that were taken over.
    pub kept: u64,
    /// Records that were readable and are not taken over, because what they belong to is not there.
    pub dropped: u64,
}

impl fmt::Display for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { damage, aside, kept, dropped } = self;
        write!(
            f,
            "the store was damaged ({damage}); it is kept as {}; {kept} records were readable and go on, \
             {dropped} belonged to others that were not and are dropped",
            aside.display()
        )
    }
}

/// A [`Store`] on disk. The first lines of the crate tell what is where.
///
/// ```
/// use mqtt_session::store::StoredClock;
/// use mqtt_session::{StoreGroup, StoreOp};
/// use mqtt_store::{FjallOptions, FjallStore, Store};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let opened = FjallStore::open(dir.path(), FjallOptions::default())?;
/// assert!(opened.salvaged.is_none());
/// let mut store = opened.store;
/// store.write(&[StoreGroup { ops: [StoreOp::PutClock(StoredClock::default())].into() }], true)?;
/// drop(store);
///
/// let mut store = FjallStore::open(dir.path(), FjallOptions::default())?.store;
/// assert_eq!(store.load(&mut |_| ())?.records, 1);
/// # Ok::<(), mqtt_store::StoreError>(())
/// ```
pub struct FjallStore {
    // Before the directory, which unlocks it.
    engine: Option<Engine>,
    directory: Directory,
    options: FjallOptions,
    format: Format,
    known: Known,
    tidy: Tidy,
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("path", &self.directory.path()).finish_non_exhaustive()
    }
}

impl FjallStore {
    /// Opens the store in the directory `path`, or makes one there. The directory is made if need be,
    /// readable by its owner only.
    ///
    /// [Load](Store::load) it before the first write: what is known to be there makes writing cheaper.
    ///
    /// Reads all files once, to know that they are what was written. If a checksum is wrong, what is
    /// readable is taken over into a new store, and the damaged one kept beside it.
    ///
    /// # Errors
    ///
    /// If another process has the store; if a newer version wrote it; if a file is missing; if the
    /// disk is full or fails, or the system does not let this process; if the store is damaged and
    /// three were set aside before. In all these cases the store stays as it is.
    pub fn open(path: impl AsRef<Path>, options: FjallOptions) -> Result<Opened, StoreError> {
        let directory = Directory::open(path.as_ref())?;
        let interrupted = directory.settle()?;
        let mut salvaged = interrupted.then(|| Salvage {
            damage: "an earlier start found it so, and was interrupted".to_owned(),
            aside: directory.path().to_owned(),
            kept: 0,
            dropped: 0,
        });
        let new = !directory.store().exists();
        if new {
            let (path, format) = directory.begin()?;
            drop(Engine::open(&path, &options, format.secret)?);
            directory.finish()?;
        }
        let (format, finding) = look(&directory)?;
        if let Finding::Damaged(damage) = finding {
            salvaged = Some(salvage::salvage(&directory, &options, format, damage)?);
        } else {
            settle_tails(&directory, finding)?;
        }
        let format = if salvaged.is_some() { look(&directory)?.0 } else { format };
        format.renew(&directory)?;
        let engine = Engine::open(&directory.store(), &options, format.secret)?;
        let known = if new { Known::of_nothing() } else { Known::default() };
        let store = Self { engine: Some(engine), directory, options, format, known, tidy: Tidy::default() };
        Ok(Opened { store, salvaged })
    }

    fn engine(&mut self) -> Result<&mut Engine, StoreError> {
        self.engine.as_mut().ok_or_else(|| {
            let cause = "it could not be opened again";
            StoreError::new(StoreErrorKind::Io, self.directory.path(), "writing a batch", cause)
        })
    }

    /// What is on the disk is not what was written, though the files are sound: at the next start it
    /// is set aside.
    fn condemn(&self, what: &str) -> StoreError {
        // If this fails, the next start finds the same again.
        drop(std::fs::write(self.directory.store().join("damaged"), what));
        StoreError::new(StoreErrorKind::Damaged, self.directory.path(), "loading it", what)
            .with_remedy("start again: it is set aside then, and what is readable taken over")
    }
}

/// Cuts off what was not written to its end. fjall does that as well, but asserts things about it
/// before.
fn settle_tails(directory: &Directory, finding: Finding) -> Result<(), StoreError> {
    match finding {
        Finding::Sound(tails) => tails
            .iter()
            .try_for_each(Tail::cut_off)
            .map_err(|error| directory.explain("cutting off what was not written to its end", &error)),
        Finding::Damaged(what) | Finding::Incomplete(what) => {
            Err(StoreError::new(StoreErrorKind::Damaged, directory.path(), "opening it", what))
        }
    }
}

/// What the files of a store are like.
fn look(directory: &Directory) -> Result<(Format, Finding), StoreError> {
    let store = directory.store();
    let explain = |error: std::io::Error| {
        let error = StoreError::io(directory.path(), "verifying its files", &error);
        if error.kind() == StoreErrorKind::Io {
            error.with_remedy("see the system's log about that disk, and whether files were removed")
        } else {
            error
        }
    };
    let format = match Format::read(&store).map_err(explain)? {
        KnownFormat::This(format) => format,
        KnownFormat::Newer(number) => {
            let cause = format!("it has format {number}");
            return Err(StoreError::new(StoreErrorKind::NewerFormat, directory.path(), "opening it", cause));
        }
        KnownFormat::Damaged => {
            let what = "the checksum of the file format is wrong".to_owned();
            return Ok((Format::UNKNOWN, Finding::Damaged(what)));
        }
    };
    if let Ok(what) = std::fs::read_to_string(store.join("damaged")) {
        return Ok((format, Finding::Damaged(what)));
    }
    Ok((format, verify::verify(&store, &format.secret).map_err(explain)?))
}

impl Store for FjallStore {
    fn load(&mut self, each: &mut dyn FnMut(StoreOp)) -> Result<Loaded, StoreError> {
        self.engine()?;
        let Self { engine: Some(engine), options, known, tidy, .. } = self else {
            return Ok(Loaded::default());
        };
        let mut sift = Sift::default();
        let mut items = engine.records.iter();
        let key = shards_key();
        let shards = engine.guarded("loading it", || {
            engine.records.get(&key).map_err(|error| engine.explain("loading it", error))
        })?;
        // The others are read in the order of their keys. What does not decode is met there.
        if let Some(value) = shards
            && let Ok(Some(record)) = decode(&key, &value)
            && sift.passes(&record, key.len() + value.len())
        {
            each(record);
        }
        // Not around `each`, whose panics are not fjall's.
        let mut next = || {
            engine.guarded("loading it", || {
                let item = items.next().map(fjall::Guard::into_inner).transpose();
                item.map_err(|error| engine.explain("loading it", error))
            })
        };
        while let Some((key, value)) = next()? {
            let Ok(record) = decode(&key, &value) else {
                let start = key.get(..17).unwrap_or(&key);
                return Err(
                    self.condemn(&format!("the record whose key begins {start:02x?} does not decode"))
                );
            };
            known.put(&key);
            let Some(record) = record.filter(|record| !matches!(record, StoreOp::PutShards(_))) else {
                continue;
            };
            if sift.passes(&record, key.len() + value.len()) {
                each(record);
            } else if let Some(owner) = owner(&key) {
                tidy.sweep(owner);
            }
            options.report(false, sift.loaded.records, sift.loaded.bytes);
        }
        known.complete();
        tidy.loaded(sift.loaded);
        Ok(sift.loaded)
    }

    fn write(&mut self, groups: &[StoreGroup], sync: bool) -> Result<(), StoreError> {
        for op in groups.iter().flat_map(|group| &*group.ops) {
            if let StoreOp::PutSession(id, _) | StoreOp::PutGroup(id, _) = op {
                self.make_way(id.0)?;
            }
        }
        let batch = self.known.merge(groups);
        // All that came may have gone again; what depends on it still waits for what came before.
        if batch.changes.is_empty() {
            let engine = self.engine()?;
            return if sync { engine.sync() } else { engine.check_worker() };
        }
        let written = self.engine()?.write(batch.changes, sync)?;
        self.known.written(&batch.ended);
        self.tidy.written(&written);
        batch.deleted.into_iter().for_each(|id| self.tidy.sweep(id));
        Ok(())
    }

    fn tidy(&mut self) -> Result<bool, StoreError> {
        self.tidy_step()
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.tidy.stop();
        // The old one first: it has the files.
        self.engine = None;
        let store = self.directory.store();
        let found = verify::journals(&store, &self.format.secret);
        let found = found.map_err(|error| self.directory.explain("verifying its journals", &error))?;
        settle_tails(&self.directory, found)?;
        let mut engine = Engine::open(&store, &self.options, self.format.secret)?;
        // A disk that is still full opens, and does not take this.
        engine.write(Vec::new(), true)?;
        self.engine = Some(engine);
        Ok(())
    }

    fn disk_space(&self) -> Option<u64> {
        Some(self.directory.space())
    }
}
