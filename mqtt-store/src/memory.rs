use crate::sift::Sift;
use crate::{Loaded, Store, StoreError, StoreErrorKind};
use mqtt_session::store::Contents;
use mqtt_session::{StoreGroup, StoreOp};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A store in memory.
///
/// Clones are handles of one store, so that a test can keep one and disturb the other: let writes
/// [fail](Self::fail_writes), [wait](Self::hold), or have the [power cut](Self::cut_power).
///
/// ```
/// use mqtt_session::store::StoredClock;
/// use mqtt_session::{StoreGroup, StoreOp};
/// use mqtt_store::{MemoryStore, Store, StoreErrorKind};
///
/// let mut store = MemoryStore::that_forgets();
/// let group = StoreGroup { ops: [StoreOp::PutClock(StoredClock::default())].into() };
/// store.write(&[group.clone()], false)?;
/// store.cut_power();
/// assert_eq!(store.contents().records().count(), 0, "it was not synced");
///
/// store.fail_writes(StoreErrorKind::DiskFull);
/// assert!(store.write(&[group.clone()], true).is_err());
/// store.heal();
/// assert!(store.write(&[group.clone()], true).is_err(), "not before it is opened again");
/// store.reopen()?;
/// store.write(&[group], true)?;
/// # Ok::<(), mqtt_store::StoreError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    /// What a loss of power leaves, and what it takes; only in a store that forgets.
    safe: Option<(Contents, Vec<StoreGroup>)>,
    held: bool,
    /// A call to `write` that waits for `release`.
    waiting: usize,
    failure: Option<Failure>,
    /// After a failure, until it is opened again.
    poisoned: bool,
    writes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Write(StoreErrorKind),
    Sync(StoreErrorKind),
}

impl Failure {
    fn error(self) -> StoreError {
        let (kind, doing) = match self {
            Self::Write(kind) => (kind, "writing"),
            Self::Sync(kind) => (kind, "syncing"),
        };
        StoreError::new(kind, "in memory", doing, "it was told to fail")
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that can [lose what was not synced](Self::cut_power). It keeps two copies of
    /// its contents.
    #[must_use]
    pub fn that_forgets() -> Self {
        let store = Self::default();
        store.state().safe = Some(Default::default());
        store
    }

    /// What it holds now.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.state().contents.clone()
    }

    /// How many calls to `write` it has answered with `Ok`.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// From now on every write and every reopening fails, and nothing is kept, until it is
    /// [healed](Self::heal).
    pub fn fail_writes(&self, kind: StoreErrorKind) {
        self.state().failure = Some(Failure::Write(kind));
    }

    /// From now on every write and every reopening fails until it is [healed](Self::heal), but what
    /// is written is there afterwards: a sync that failed.
    pub fn fail_syncs(&self, kind: StoreErrorKind) {
        self.state().failure = Some(Failure::Sync(kind));
    }

    /// It fails no more. If something failed meanwhile, it has to be opened again first.
    pub fn heal(&self) {
        self.state().failure = None;
    }

    /// From now on writes wait, until they are [released](Self::release).
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets writes go on.
    pub fn release(&self) {
        self.state().held = false;
        self.shared.released.notify_all();
    }

    /// Whether a write waits to be released.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state().waiting > 0
    }

    /// Forgets what was not synced, if the store was made by [`that_forgets`](Self::that_forgets).
    pub fn cut_power(&self) {
        let state = &mut *self.state();
        if let Some((safe, unsynced)) = &mut state.safe {
            unsynced.clear();
            state.contents = safe.clone();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be half done when a thread panics.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, groups: &[StoreGroup], sync: bool) {
        for group in groups {
            self.contents.apply(group);
        }
        if let Some((safe, unsynced)) = &mut self.safe {
            unsynced.extend_from_slice(groups);
            if sync {
                for group in unsynced.drain(..) {
                    safe.apply(&group);
                }
            }
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.poisoned {
            let cause = "an earlier write failed";
            return Err(StoreError::new(StoreErrorKind::Io, "in memory", "writing", cause)
                .with_remedy("open it again first"));
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn load(&mut self, each: &mut dyn FnMut(StoreOp)) -> Result<Loaded, StoreError> {
        let mut sift = Sift::default();
        // A copy, so that `each` may use another handle of the store.
        for record in self.contents().records() {
            let body = if let StoreOp::PutMessage(_, message) = &record { message.body.len() } else { 0 };
            if sift.passes(&record, body + 32) {
                each(record);
            }
        }
        Ok(sift.loaded)
    }

    fn write(&mut self, groups: &[StoreGroup], sync: bool) -> Result<(), StoreError> {
        let mut state = self.state();
        state.waiting += 1;
        while state.held {
            state = self.shared.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.check()?;
        if let Some(failure) = state.failure {
            if let Failure::Sync(_) = failure {
                state.keep(groups, false);
            }
            state.poisoned = true;
            return Err(failure.error());
        }
        state.keep(groups, sync);
        state.writes += 1;
        Ok(())
    }

    fn tidy(&mut self) -> Result<bool, StoreError> {
        self.state().check().map(|()| false)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let mut state = self.state();
        if let Some(failure) = state.failure {
            return Err(failure.error());
        }
        state.poisoned = false;
        Ok(())
    }
}
