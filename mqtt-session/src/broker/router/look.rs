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
    /// One above the last place of a subscription.
    pub(in crate::broker) fn subscription_places(&self) -> u64 {
        self.filters.places().max(self.groups_of_session.len() as u64)
    }

    /// The subscriptions in a place from the `from`th on. That is: those of the filter with this number, the
    /// shared ones of groups of it, and those by which the session with this number is in groups of other
    /// shards. What is skipped costs nothing but a look at each group.
    pub(in crate::broker) fn subscribers_at(
        &self,
        place: u64,
        from: usize,
    ) -> impl Iterator<Item = Subscriber> {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let value = self.filters.get(place);
        let own = value.map_or(&[][..], |value| &value.subscriptions);
        let groups = self.groups_at(place);
        let mut before = own.len();
        let own = own.get(from..).unwrap_or_default().iter().map(move |s| {
            let filter = self.filters.path(place);
            Subscriber { filter, session: s.session, options: s.options, id: s.id(), waiting: 0 }
        });
        let mut shared = Vec::new();
        for group in groups.iter().filter_map(|&key| self.group(key)) {
            shared.push((group, from.saturating_sub(before)));
            before += group.members.len();
        }
        let shared = shared.into_iter().flat_map(move |(group, skip)| {
            group.members.get(skip..).unwrap_or_default().iter().map(move |m| {
                let filter = format!("$share/{}/{}", group.name(), self.filters.path(place));
                let waiting = group.queue.len();
                Subscriber { filter, session: m.session, options: m.options, id: m.id, waiting }
            })
        });
        let away = self
            .groups_of(place)
            .iter()
            .filter(move |&&key| self.group(key).is_some_and(|group| group.leaf.is_some()));
        let away = away.skip(from.saturating_sub(before));
        own.chain(shared).chain(away.filter_map(move |&key| self.subscriber(Place::Shared(place, key))))
    }

    /// Where a session's subscription of this number stands, counted from 0.
    pub(in crate::broker) fn subscribed_by(&self, session: SessionKey, number: usize) -> Option<Place> {
        let own = self.of_session.get(session as usize).map_or(&[][..], Vec::as_slice);
        if let Some(&node) = own.get(number) {
            return Some(Place::Own(session, node));
        }
        let shared = self.groups_of(session).get(number - own.len())?;
        Some(Place::Shared(session, *shared))
    }

    /// The subscription in such a place.
    pub(in crate::broker) fn subscriber(&self, place: Place) -> Option<Subscriber> {
        match place {
            Place::Own(session, node) => {
                let s = self.find_subscription(session, node)?;
                let filter = self.filters.path(node);
                Some(Subscriber { filter, session, options: s.options, id: s.id(), waiting: 0 })
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
