//! Looking into a running broker and acting on what is seen.

use super::handle::{BrokerHandle, Ended, put_question};
use super::run::Mail;
use crate::runtime::Runtime;
use crate::{Command, View};
use mqtt_session::Message;
use mqtt_session::broker::{ClientInfo, Page, RetainedInfo, SubscriptionInfo};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// So often a shard is asked for one page at most: each time it looks at so many places that others wait
/// only a moment, and many of these may be empty.
const LOOKS: usize = 16;

/// Where a page of a list begins. The default is the beginning of the list; as text it is meant to be
/// given back, not to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    shard: u16,
    place: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.place)
    }
}

/// This text is no [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in a list: use what the page before gave as the next")]
pub struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (shard, place) = text.split_once('-').ok_or(PlaceError)?;
        let shard = shard.parse().map_err(|_| PlaceError)?;
        Ok(Self { shard, place: place.parse().map_err(|_| PlaceError)? })
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed<T> {
    /// What is there, in no particular order. It may be less than was asked for, or nothing, and yet not the end.
    pub items: Vec<T>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<Place>,
}

/// Lists come in pages of at most `limit`, which cost the broker little however long the list is. What
/// comes or goes between two pages may be missed or seen; nothing is seen twice.
impl<R: Runtime> BrokerHandle<R> {
    /// Sessions; with `connected` only those that have a connection.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn clients(
        &self,
        from: Place,
        limit: usize,
        connected: bool,
    ) -> Result<Listed<ClientInfo>, Ended> {
        self.listed(from, limit, move |view, at, limit| {
            let mut page = view.broker.clients(view.now, at, limit, connected);
            page.items.iter_mut().for_each(|client| locate(view, client));
            page
        })
        .await
    }

    /// The session of a client.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn client(&self, client_id: &str) -> Result<Option<ClientInfo>, Ended> {
        let client_id: Arc<str> = client_id.into();
        let found = self.look_at_all(move |view| {
            let mut client = view.broker.client(view.now, &client_id)?;
            locate(view, &mut client);
            Some(client)
        });
        let found = found.await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Subscriptions.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn subscriptions(&self, from: Place, limit: usize) -> Result<Listed<SubscriptionInfo>, Ended> {
        self.listed(from, limit, |view, at, limit| {
            view.broker.subscriptions(None, at, limit).unwrap_or(Page { items: Vec::new(), next: None })
        })
        .await
    }

    /// The subscriptions of one client. Of one that is not there, there are none.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn subscriptions_of(
        &self,
        client_id: &str,
        from: Place,
        limit: usize,
    ) -> Result<Listed<SubscriptionInfo>, Ended> {
        let client_id: Arc<str> = client_id.into();
        self.listed(from, limit, move |view, at, limit| {
            let page = view.broker.subscriptions(Some(&client_id), at, limit);
            page.unwrap_or(Page { items: Vec::new(), next: None })
        })
        .await
    }

    /// Retained messages, without their contents.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn retained(&self, from: Place, limit: usize) -> Result<Listed<RetainedInfo>, Ended> {
        self.listed(from, limit, |view, at, limit| view.broker.retained(view.now, at, limit)).await
    }

    /// The retained message of a topic.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn retained_message(&self, topic: &str) -> Result<Option<Message>, Ended> {
        let topic: Arc<str> = topic.into();
        let found = self.look_at_all(move |view| view.broker.retained_message(view.now, &topic)).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Ends the session of a client for good, and its connection, which 5.0 tells that an administrator did it
    /// (0x98). Its will is published. Tells whether there was one.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn remove_session(&self, client_id: impl Into<String>) -> Result<bool, Ended> {
        let client_id = client_id.into();
        let found = self.ask_all(|reply| Command::RemoveSession(client_id.clone(), reply)).await?;
        Ok(found.contains(&true))
    }

    /// Removes the retained message of a topic, without telling subscribers. Tells whether there was one.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn remove_retained(&self, topic: impl Into<String>) -> Result<bool, Ended> {
        let topic = topic.into();
        let found = self.ask_all(|reply| Command::RemoveRetained(topic.clone(), reply)).await?;
        Ok(found.contains(&true))
    }

    /// Tells the broker how many bytes of memory the program uses, for `$SYS/broker/heap`.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn tell_memory(&self, bytes: u64) -> Result<(), Ended> {
        // The first shard is the one that tells.
        let told = self.mailboxes()[0].send(Mail::Command(Command::Memory(bytes))).await;
        told.map_err(|_| Ended)
    }

    async fn look_at_all<T: Send + 'static>(
        &self,
        look: impl Fn(&View<'_>) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Ended> {
        self.ask_all(|reply| {
            let look = look.clone();
            Command::Look(Box::new(move |view| reply(look(view))))
        })
        .await
    }

    async fn listed<T: Send + 'static>(
        &self,
        from: Place,
        limit: usize,
        look: impl Fn(&View<'_>, u64, usize) -> Page<T> + Clone + Send + 'static,
    ) -> Result<Listed<T>, Ended> {
        let limit = limit.max(1);
        let mut items = Vec::new();
        let mut at = from;
        for _ in 0..LOOKS {
            let Some(mailbox) = self.mailboxes().get(usize::from(at.shard)) else {
                return Ok(Listed { items, next: None });
            };
            let left = limit - items.len();
            let look = look.clone();
            let ask = move |reply: crate::Reply<Page<T>>| {
                Command::Look(Box::new(move |view| reply(look(view, at.place, left))))
            };
            let page = put_question(mailbox, ask).await?.await.map_err(|_| Ended)?;
            items.extend(page.items);
            at = match page.next {
                Some(place) => Place { place, ..at },
                None => Place { shard: at.shard.saturating_add(1), place: 0 },
            };
            if items.len() >= limit {
                break;
            }
        }
        let next = (usize::from(at.shard) < self.shards()).then_some(at);
        Ok(Listed { items, next })
    }
}

fn locate(view: &View<'_>, client: &mut ClientInfo) {
    if let Some(link) = &mut client.link {
        link.address = view.address(link.conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place { shard: 3, place: 1 << 40 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "1", "-", "1-", "-1", "a-1", "1-2-3", "70000-0"] {
            assert_eq!(text.parse::<Place>(), Err(PlaceError), "{text}");
        }
    }
}
