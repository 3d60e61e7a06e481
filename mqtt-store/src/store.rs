use crate::StoreError;
use mqtt_session::{StoreGroup, StoreOp};

/// What keeps the groups of one broker or client.
///
/// # What a store promises
///
/// * A group is kept whole or not at all, and a later one never without an earlier one: after any
///   crash the store holds exactly the groups of some prefix of what was written. The prefix has at
///   least everything for which [`write`](Self::write) returned `Ok`.
/// * The groups change contents as [`Contents`](mqtt_session::store::Contents) says, and
///   [`load`](Self::load) gives what
///   [`Contents::records`](mqtt_session::store::Contents::records) gives, in that order (texts that
///   agree in 60,000 bytes may come in any order among themselves). Only what belongs to a session or group that has no record (but a will) is left out: it may not be swept
///   yet.
/// * After an error nothing more is written until [`reopen`](Self::reopen) succeeded. Of the groups
///   of the failed call any prefix may be there then. They come again, which is harmless: every
///   operation is an absolute put or delete.
///
/// The shared suite of this crate (feature `suite`) tests these promises for any store.
///
/// All calls come from one thread at a time and may block.
pub trait Store: Send {
    /// Passes every record to `each`, in the order of
    /// [`Contents::records`](mqtt_session::store::Contents::records). Must not hold more in memory
    /// than what it passes on at a time, but for the numbers of sessions.
    ///
    /// # Errors
    ///
    /// When something cannot be read. What `each` got until then is void.
    fn load(&mut self, each: &mut dyn FnMut(StoreOp)) -> Result<Loaded, StoreError>;

    /// Keeps `groups`, in order, in one commit.
    ///
    /// When it returns `Ok`, the groups survive the death of this process; with `sync` also a loss
    /// of power.
    ///
    /// # Errors
    ///
    /// When it is not certain that the groups are kept. From then on every call fails until
    /// [`reopen`](Self::reopen) succeeded.
    fn write(&mut self, groups: &[StoreGroup], sync: bool) -> Result<(), StoreError>;

    /// Does one bounded step (some milliseconds) of what is left to do: sweeping what deleted
    /// sessions left, syncing what was not, giving back disk space. Called when nothing else is to be
    /// done, and now and then when there always is.
    ///
    /// `true` means that more is left, now or in a moment: it is called again soon.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    fn tidy(&mut self) -> Result<bool, StoreError>;

    /// Opens the store again after an error.
    ///
    /// # Errors
    ///
    /// When the reason is still there. It is tried again later.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Bytes that the store takes up on the disk, if it is on one.
    fn disk_space(&self) -> Option<u64> {
        None
    }
}

/// What [`Store::load`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Records that were passed on.
    pub records: u64,
    /// About how many bytes they are.
    pub bytes: u64,
    /// Records left out because their session or group has none: what is still to be swept.
    pub void: u64,
}
