//! What subscriptions and retained messages there are, by their places in the trees.

use super::subscriptions::Member;
use super::tree::NodeId;
use super::{GroupKey, MessageKey, Router, SessionKey};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::SubscriptionOptions;

/// A subscription.
#[derive(Debug)]
pub(in crate::broker) struct Subscriber {
    /// The filter, `$share/` included.
    pub(in crate::broker) filter: String,
    pub(in crate::broker) session: SessionKey,
    pub(in crate::broker) options: SubscriptionOptions,
    pub(in crate::broker) id: Option<u32>,
    /// Messages that wait in its group.
    pub(in crate::broker) waiting: usize,
}

/// Where a session's subscription stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Place {
    Own(SessionKey, NodeId),
    Shared(SessionKey, GroupKey),
}

impl Router {
    /// One above the last place of a filter.
    pub(in crate::broker) fn filter_places(&self) -> u64 {
        self.filters.places()
    }

    /// The subscriptions in a place, shared ones last.
    pub(in crate::broker) fn subscribers_at(&self, place: u64) -> impl Iterator<Item = Subscriber> {
        let node = NodeId::try_from(place).unwrap_or(NodeId::MAX);
        let value = self.filters.get(node);
        let own = value.into_iter().flat_map(|value| &value.subscriptions);
        let own = own.map(move |s| (s.session, s.options, s.id, None));
        let groups = value.into_iter().flat_map(|value| &value.groups).filter_map(|&key| self.group(key));
        let shared = groups
            .flat_map(|group| group.members.iter().map(move |m| (m.session, m.options, m.id, Some(group))));
        own.chain(shared).map(move |(session, options, id, group)| {
            let path = self.filters.path(node, &self.levels);
            let (filter, waiting) = match group {
                Some(group) => (format!("$share/{}/{path}", group.name()), group.queue.len()),
                None => (path, 0),
            };
            Subscriber { filter, session, options, id, waiting }
        })
    }

    /// Where the subscriptions of a session stand.
    pub(in crate::broker) fn subscribed_by(&self, session: SessionKey) -> Vec<Place> {
        let own = self.of_session.get(session as usize).into_iter().flatten();
        let own = own.map(|&node| Place::Own(session, node));
        own.chain(self.groups_of(session).iter().map(|&key| Place::Shared(session, key))).collect()
    }

    /// The subscription in such a place.
    pub(in crate::broker) fn subscriber(&self, place: Place) -> Option<Subscriber> {
        match place {
            Place::Own(session, node) => {
                let (slot, _) = self.places.get(&(session, node))?;
                let s = self.filters.get(node)?.subscriptions.get(*slot as usize)?;
                let filter = self.filters.path(node, &self.levels);
                Some(Subscriber { filter, session, options: s.options, id: s.id, waiting: 0 })
            }
            Place::Shared(session, key) => {
                let group = self.group(key)?;
                let &Member { options, id, .. } = group.members.iter().find(|m| m.session == session)?;
                let filter = self.filter_of_group(key)?;
                Some(Subscriber { filter, session, options, id, waiting: group.queue.len() })
            }
        }
    }

    /// One above the last place of a retained message.
    pub(in crate::broker) fn retained_places(&self) -> u64 {
        self.retained.places()
    }

    /// The retained message in a place.
    pub(in crate::broker) fn retained_in(&self, place: u64) -> Option<MessageKey> {
        self.retained.get(NodeId::try_from(place).ok()?)?.0
    }
}
