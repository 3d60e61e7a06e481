//! From groups to one batch: the last change of each key, and nothing about what came and went.

use super::layout::{Change, encode, tag};
use mqtt_session::{StoreGroup, StoreOp};
use std::collections::{HashMap, HashSet};

/// What is known of the keys on disk, so that what cannot be there need not be deleted.
///
/// A message that is delivered while its first commit is still on its way is put and deleted by one
/// batch: then neither has to be written. That is right only if the key is certainly not on the disk,
/// which numbers tell that are above all that were ever put.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether all that is on the disk is known: after it was loaded.
    complete: bool,
    messages: Highest,
    entries: Highest,
    /// The exchanges that may be there. There are no more of them than packets under way.
    exchanges: HashSet<(u64, u64)>,
}

/// The highest number so far, of each row that a shard counts in: the numbers of two shards never agree in
/// their low six bits.
#[derive(Debug, Default)]
struct Highest(HashMap<u8, u64>);

impl Highest {
    fn row(n: u64) -> u8 {
        (n & 63) as u8
    }

    fn is_below(&self, n: u64) -> bool {
        self.0.get(&Self::row(n)).is_none_or(|highest| *highest < n)
    }

    fn raise(&mut self, n: u64) {
        let highest = self.0.entry(Self::row(n)).or_default();
        *highest = n.max(*highest);
    }
}

fn ids(key: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    let second = rest.first_chunk::<8>().map_or(0, |second| u64::from_be_bytes(*second));
    Some((u64::from_be_bytes(*first), second))
}

/// Session and entry of an exchange, if it is the key of one.
fn exchange(key: &[u8]) -> Option<(u64, u64)> {
    if key.first() == Some(&tag::EXCHANGE) { ids(key) } else { None }
}

impl Known {
    /// Of an empty store, all is known.
    pub(super) fn of_nothing() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// The key is on the disk, or may be soon.
    pub(super) fn put(&mut self, key: &[u8]) {
        let Some((first, second)) = ids(key) else { return };
        match key.first() {
            Some(&tag::MESSAGE) => self.messages.raise(first),
            Some(&tag::ENTRY) => self.entries.raise(second),
            Some(&tag::EXCHANGE) => {
                self.exchanges.insert((first, second));
            }
            _ => {}
        }
    }

    /// All keys on the disk were put in here.
    pub(super) const fn complete(&mut self) {
        self.complete = true;
    }

    fn may_exist(&self, key: &[u8]) -> bool {
        if !self.complete {
            return true;
        }
        match (key.first(), ids(key)) {
            (Some(&tag::MESSAGE), Some((id, _))) => !self.messages.is_below(id),
            (Some(&tag::ENTRY), Some((_, entry))) => !self.entries.is_below(entry),
            (Some(&tag::EXCHANGE), Some(ids)) => self.exchanges.contains(&ids),
            _ => true,
        }
    }

    /// The changes that `groups` make, by key. From now on their keys may exist, whether they come
    /// to be written or not.
    pub(super) fn merge(&mut self, groups: &[StoreGroup]) -> Batch {
        let mut all = Vec::with_capacity(groups.iter().map(|group| group.ops.len() + 1).sum());
        let mut deleted = Vec::new();
        for op in groups.iter().flat_map(|group| &*group.ops) {
            if let StoreOp::DeleteSession(id) | StoreOp::DeleteGroup(id) = op {
                deleted.push(id.0);
            }
            encode(op, &mut all);
        }
        // Stable: the last change of a key is the last of its run.
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let mut changes: Vec<Change> = Vec::with_capacity(all.len());
        for change in all {
            match changes.last_mut() {
                Some(last) if last.key == change.key => *last = change,
                _ => changes.push(change),
            }
        }
        changes.retain(|change| change.value.is_some() || self.may_exist(&change.key));
        for change in changes.iter().filter(|change| change.value.is_some()) {
            self.put(&change.key);
        }
        let removed = changes.iter().filter(|change| change.value.is_none());
        let ended = removed.filter_map(|change| exchange(&change.key)).collect();
        Batch { changes, deleted, ended }
    }

    /// A batch with these [`ended`](Batch::ended) is written.
    pub(super) fn written(&mut self, ended: &[(u64, u64)]) {
        for ids in ended {
            self.exchanges.remove(ids);
        }
    }

    /// The key is not on the disk any more.
    pub(super) fn gone(&mut self, key: &[u8]) {
        if let Some(ids) = exchange(key) {
            self.exchanges.remove(&ids);
        }
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Batch {
    /// One for each key, in their order.
    pub(super) changes: Vec<Change>,
    /// Sessions and groups whose rest is to be swept.
    pub(super) deleted: Vec<u64>,
    /// Exchanges that it deletes.
    pub(super) ended: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mqtt_proto::{PacketId, QoS};
    use mqtt_session::store::{EntryId, MessageId, SessionId, StoredDelivery, StoredMessage, StoredStage};

    fn put(id: u64) -> StoreGroup {
        let message = StoredMessage {
            body: Bytes::from_static(b"topic"),
            topic_len: 5,
            properties_len: 0,
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: None,
            author: None,
        };
        let delivery = StoredDelivery {
            session: SessionId(1),
            entry: EntryId(id),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Box::default(),
        };
        StoreGroup {
            ops: [
                StoreOp::PutMessage(MessageId(id), message.into()),
                StoreOp::Append(MessageId(id), vec![delivery]),
            ]
            .into(),
        }
    }

    fn exchange(id: u64, stage: StoredStage) -> StoreGroup {
        let (session, entry, packet_id) = (SessionId(1), EntryId(id), PacketId::MIN);
        StoreGroup { ops: [StoreOp::PutExchange { session, entry, packet_id, number: id, stage }].into() }
    }

    fn remove(id: u64) -> StoreGroup {
        StoreGroup {
            ops: [StoreOp::RemoveEntry(SessionId(1), EntryId(id)), StoreOp::DeleteMessage(MessageId(id))]
                .into(),
        }
    }

    fn write(known: &mut Known, groups: &[StoreGroup]) -> (usize, usize) {
        let batch = known.merge(groups);
        known.written(&batch.ended);
        let puts = batch.changes.iter().filter(|change| change.value.is_some()).count();
        (puts, batch.changes.len() - puts)
    }

    #[test]
    fn what_comes_and_goes_within_a_batch_is_not_written() {
        let mut known = Known::of_nothing();
        assert_eq!(write(&mut known, &[put(1), remove(1)]), (0, 0));
        assert_eq!(write(&mut known, &[put(2), exchange(2, StoredStage::Published), remove(2)]), (0, 0));
        // Over two batches: the message and the entry; there is no exchange to delete.
        assert_eq!(write(&mut known, &[put(3)]), (2, 0));
        assert_eq!(write(&mut known, &[remove(3)]), (0, 2));
        assert_eq!(write(&mut known, &[put(4), exchange(4, StoredStage::Published)]), (3, 0));
        assert_eq!(write(&mut known, &[exchange(4, StoredStage::Released), remove(4)]), (0, 3));
    }

    #[test]
    fn what_may_have_been_written_by_a_failed_batch_is_deleted() {
        let mut known = Known::of_nothing();
        // It fails: not known whether it is there.
        known.merge(&[put(1), exchange(1, StoredStage::Published)]);
        // The groups come again.
        let again = [put(1), exchange(1, StoredStage::Published), remove(1)];
        assert_eq!(write(&mut known, &again), (0, 3));
    }

    #[test]
    fn before_a_store_is_loaded_everything_may_be_there() {
        let mut known = Known::default();
        assert_eq!(write(&mut known, &[put(1), remove(1)]), (0, 3));
    }
}
