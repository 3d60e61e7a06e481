use super::MessageId;
use alloc::vec::Vec;

/// Which retained messages a new subscription still has to get.
///
/// They are sent in the order of their numbers, from whichever shards they come, so one number tells how far that is. The
/// numbers of a shard leave the same remainder by a power of two, and after a restart each shard goes on above all that
/// were given: what this says stays true when there is another number of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredReplay {
    /// The number of the last one that it got.
    pub after: MessageId,
    /// By the remainder of a number by how many there are: the last number that counts. Those above came live. Nothing
    /// is here as long as the shards have not all told: then all count that there are at a restart.
    pub until: Vec<MessageId>,
    /// Numbers that do not count although they are not above: these came live as well.
    pub except: Vec<MessageId>,
}

impl StoredReplay {
    /// Whether what came live is known.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !self.until.is_empty()
    }

    /// Whether it still has to get the message with this number.
    #[must_use]
    pub fn wants(&self, id: MessageId) -> bool {
        let shards = u64::try_from(self.until.len()).unwrap_or(u64::MAX);
        // With none all count.
        let place = id.0.checked_rem(shards).and_then(|place| usize::try_from(place).ok());
        let last = place.and_then(|place| self.until.get(place)).copied();
        id > self.after && last.is_none_or(|last| id <= last) && !self.except.contains(&id)
    }

    /// Takes it up after a restart that found no number above `last`: where it was not known what came live, these count that
    /// are there now, up to the last number of each shard. Whether that changes anything.
    pub(crate) fn resume(&mut self, last: MessageId, now: &[MessageId]) -> bool {
        let before = self.until.clone();
        // A shard that had given none since the last restart said more than there is, as a damaged store may: with another
        // number of shards these are given now.
        self.until.iter_mut().for_each(|until| *until = last.min(*until));
        if self.until.is_empty() {
            self.until = now.into();
        }
        self.until != before
    }

    pub(crate) fn size(&self) -> usize {
        (self.until.len() + self.except.len()) * size_of::<MessageId>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn wanted(replay: &StoredReplay) -> Vec<u64> {
        (0..12).filter(|id| replay.wants(MessageId(*id))).collect()
    }

    #[test]
    fn each_shard_has_numbers_of_its_own() {
        let ids = |ids: &[u64]| ids.iter().copied().map(MessageId).collect();
        let replay = |until: &[u64], except: &[u64]| StoredReplay {
            after: MessageId(3),
            until: ids(until),
            except: ids(except),
        };
        assert_eq!(wanted(&replay(&[], &[])), [4, 5, 6, 7, 8, 9, 10, 11], "not known yet");
        assert_eq!(wanted(&replay(&[7], &[])), [4, 5, 6, 7]);
        assert_eq!(wanted(&replay(&[8, 5], &[])), [4, 5, 6, 8]);
        assert_eq!(wanted(&replay(&[8, 5], &[6])), [4, 5, 8]);
    }

    #[test]
    fn what_comes_after_a_restart_does_not_count() {
        let now = [MessageId(6), MessageId(5)];
        let mut open = StoredReplay::default();
        assert!(open.resume(MessageId(4), &now));
        assert_eq!(wanted(&open), [1, 2, 3, 4, 5, 6]);
        assert!(!open.resume(MessageId(8), &[MessageId(10)]), "it is known by now");
        let mut damaged = StoredReplay { until: vec![MessageId(u64::MAX), MessageId(1)], ..open };
        assert!(damaged.resume(MessageId(4), &now));
        assert_eq!(wanted(&damaged), [1, 2, 4]);
    }
}
