//! The tables that say who may do what, asked within the machine.
//!
//! Rights are asked for when something is about to happen, not when it was set up: what was
//! subscribed to, queued, retained or left as a will under a right that is gone stays without effect.

use super::message::{Held, MessageKey};
use super::output::{Denied, Event};
use super::router::{Matches, Receiver, SessionKey};
use super::session::{Delivery, Session};
use super::{Broker, DropReason};
use crate::Timestamp;
use crate::acl::{Acl, Action, Identity, Mode};
use crate::store::StoredAuthor;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mqtt_proto::{ReasonCode, TopicFilter};

/// The tables by their number; none means that everybody may do everything.
#[derive(Debug, Default)]
pub(super) struct Acls(Vec<Arc<Acl>>);

impl Acls {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn allow(&self, acl: u16, who: &Identity<'_>, action: Action<'_>) -> bool {
        // A number without a table is nobody's.
        self.is_empty() || self.0.get(usize::from(acl)).is_some_and(|acl| acl.allows(who, action))
    }

    /// Whether the session may get what was published to `topic`.
    pub(super) fn may_read(&self, session: &Session, topic: &str) -> bool {
        session.local.is_some() || self.session_may(session, Action::Read(topic))
    }

    fn session_may(&self, session: &Session, action: Action<'_>) -> bool {
        self.is_empty() || self.allow(session.acl, &session.identity(), action)
    }

    /// Whether the publisher of what is retained might still publish it.
    pub(super) fn may_keep(&self, author: &StoredAuthor, topic: &str) -> bool {
        let who = Identity { user_name: author.user_name.as_deref(), client_id: &author.client_id };
        self.allow(author.acl, &who, Action::Write(topic))
    }

    /// Whether a CONNECT with a will to this topic is to be refused.
    pub(super) fn refuse_will(&self, acl: u16, who: &Identity<'_>, topic: &str) -> bool {
        let strict = self.0.get(usize::from(acl)).is_none_or(|acl| acl.mode() == Mode::Strict);
        strict && !self.allow(acl, who, Action::Write(topic))
    }
}

impl Session {
    fn identity(&self) -> Identity<'_> {
        Identity { user_name: self.user_name.as_deref(), client_id: &self.client_id }
    }
}

impl Broker {
    /// Puts these tables in place of those that there are, at once: for everything that happens from
    /// now on, including the delivery of what is queued or retained and the wills of clients that
    /// are connected. A client is subject to the table whose number its
    /// [`Grant::acl`](super::Grant::acl) has. With no tables everybody may do everything; with some,
    /// whoever's number has none may do nothing.
    ///
    /// The cost grows with the number of sessions and of messages that are under way.
    pub fn set_acls(&mut self, now: Timestamp, acls: Vec<Arc<Acl>>) {
        self.begin(now);
        self.acls = Acls(acls);
        self.router.forget_refused();
        let keys: Vec<SessionKey> =
            self.sessions.iter().filter_map(|(key, _)| SessionKey::try_from(key).ok()).collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key as usize) {
                session.recheck = true;
            }
            self.drop_unreadable(key, false);
        }
        self.finish();
    }

    /// Closes the connections of all clients with this user name, or of those without one, telling
    /// them why (5.0). Tells how many that were.
    pub fn disconnect_user(&mut self, now: Timestamp, user_name: Option<&str>, reason: ReasonCode) -> usize {
        self.begin(now);
        let is_theirs =
            |session: &Session| session.user_name.as_deref() == user_name && session.local.is_none();
        let links: Vec<u32> =
            self.sessions.iter().filter(|(_, s)| is_theirs(s)).filter_map(|(_, s)| s.link).collect();
        for &link in &links {
            self.hang_up(link, reason, true);
        }
        self.finish();
        links.len()
    }

    /// Takes out of `matches` who may not get a message to `topic`. Whether that was anybody.
    pub(super) fn withhold(&self, topic: &str, matches: &mut Matches) -> bool {
        let may = |receiver: &Receiver| {
            let session = self.sessions.get(receiver.session as usize);
            session.is_some_and(|session| self.acls.may_read(session, topic))
        };
        let before = matches.receivers.len();
        matches.receivers.retain(may);
        matches.receivers.len() < before
    }

    /// Whether the session may publish there; if not, it is told.
    pub(super) fn may_write(&mut self, key: SessionKey, topic: &str) -> bool {
        self.may(key, Action::Write(topic), Denied::Publish, topic)
    }

    /// Whether its will may be published; if not, it is told.
    pub(super) fn may_leave_will(&mut self, key: SessionKey, will: MessageKey) -> bool {
        if self.acls.is_empty() {
            return true;
        }
        let Some(held) = self.messages.get(will) else { return false };
        let topic = alloc::string::String::from(held.topic_str());
        self.may(key, Action::Write(&topic), Denied::Will, &topic)
    }

    /// Whether the session may subscribe to this; if not, it is told.
    pub(super) fn may_subscribe(&mut self, key: SessionKey, filter: TopicFilter<'_>) -> bool {
        let inner = filter.shared().map_or(filter, |shared| shared.filter);
        self.may(key, Action::Subscribe(inner.as_str()), Denied::Subscribe, filter.as_str())
    }

    #[inline]
    fn may(&mut self, key: SessionKey, action: Action<'_>, denied: Denied, topic: &str) -> bool {
        if self.acls.is_empty() {
            return true;
        }
        let Some(session) = self.sessions.get(key as usize) else { return false };
        let allowed = self.acls.session_may(session, action);
        if !allowed {
            let denials = &mut self.counters.denied;
            *match denied {
                Denied::Publish => &mut denials.publish,
                Denied::Subscribe => &mut denials.subscribe,
                Denied::Will => &mut denials.will,
            } += 1;
            let client_id = session.client_id.as_ref().into();
            let user_name = session.user_name.as_deref().map(Into::into);
            self.event(Event::Denied { client_id, user_name, what: denied, topic: topic.into() });
        }
        allowed
    }

    /// Notes who publishes what is to be retained.
    pub(super) fn sign(&mut self, message: MessageKey, publisher: Option<SessionKey>) {
        if self.acls.is_empty() {
            return;
        }
        let Some(session) = publisher.and_then(|key| self.sessions.get(key as usize)) else { return };
        if self.messages.get(message).is_some_and(Held::retain) {
            let author = StoredAuthor {
                acl: session.acl,
                client_id: session.client_id.as_ref().into(),
                user_name: session.user_name.as_deref().map(Into::into),
            };
            self.messages.sign(message, Box::new(author));
        }
    }

    /// Drops what is under way to a session and may not be read by it any more. What its present link
    /// has sent stays until it is answered; a link that is `new` has sent nothing.
    pub(super) fn drop_unreadable(&mut self, key: SessionKey, new: bool) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if self.acls.is_empty() || session.ledger.is_empty() {
            return;
        }
        let mut ledger = core::mem::take(&mut session.ledger);
        let session = &*session;
        let (live, acls, messages) = (session.link.is_some() && !new, &self.acls, &self.messages);
        let gone = ledger.extract(|exchange| {
            exchange.message.as_ref().is_some_and(|delivery| {
                !(live && exchange.published)
                    && messages.get(delivery.message).is_some_and(|h| !acls.may_read(session, h.topic_str()))
            })
        });
        if let Some(session) = self.sessions.get_mut(key as usize) {
            session.ledger = ledger;
        }
        let gone: Vec<Delivery> = gone.into_iter().filter_map(|exchange| exchange.message).collect();
        for delivery in gone {
            self.discard(key, delivery, false);
            self.count_drop(key, DropReason::NotAuthorized);
        }
    }
}
