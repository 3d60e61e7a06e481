//! Topic aliases. Both tables belong to one link and die with it [MQTT-3.3.2-7].

use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashMap;
use mqtt_proto::ReasonCode;

/// What the peer's aliases stand for. Holds only what the peer has set, bounded by the maximum that
/// we announced; each number up to it is accepted ([MQTT-3.3.2-10], [MQTT-3.3.2-12]).
#[derive(Clone, Debug, Default)]
pub(crate) struct InboundAliases {
    topics: Vec<Option<Box<str>>>,
    max: u16,
}

impl InboundAliases {
    pub(crate) const fn new(max: u16) -> Self {
        Self { topics: Vec::new(), max }
    }

    /// The topic of a PUBLISH that carries `alias`. A topic that is not empty (re)sets the alias.
    pub(crate) fn resolve<'a>(&'a mut self, alias: u16, topic: &'a str) -> Result<&'a str, ReasonCode> {
        if alias == 0 || alias > self.max {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let index = usize::from(alias) - 1;
        if !topic.is_empty() {
            if self.topics.len() <= index {
                self.topics.resize(index + 1, None);
            }
            if let Some(slot) = self.topics.get_mut(index) {
                *slot = Some(topic.into());
            }
            return Ok(topic);
        }
        // A number that stands for nothing is a protocol error.
        match self.topics.get(index) {
            Some(Some(known)) => Ok(known),
            _ => Err(ReasonCode::ProtocolError),
        }
    }
}

/// How a topic is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// In full, without a number.
    None,
    /// In full, and the number stands for it from now on.
    Set(u16),
    /// The number alone.
    Use(u16),
}

/// The aliases that we gave to the peer, within the maximum that it announced ([MQTT-3.1.2-26],
/// [MQTT-3.2.2-17], [MQTT-3.3.2-9], [MQTT-3.3.2-11]); none if that is 0 ([MQTT-3.1.2-27],
/// [MQTT-3.2.2-18]).
///
/// When all numbers are given, the least recently used one is taken over only on the second sight of
/// a topic, so that topics that pass once cannot drive out those that stay.
#[derive(Clone, Debug)]
pub(crate) struct OutboundAliases<S> {
    numbers: HashMap<Box<[u8]>, u16, S>,
    /// Per number: its topic and when it was last used.
    slots: Vec<(Box<[u8]>, u64)>,
    /// A few topics seen once while all numbers were given.
    candidates: Vec<u64>,
    clock: u64,
    max: u16,
    hasher: S,
}

const CANDIDATES: usize = 8;

impl<S: core::hash::BuildHasher + Clone> OutboundAliases<S> {
    pub(crate) fn new(max: u16, hasher: S) -> Self {
        Self {
            numbers: HashMap::with_hasher(hasher.clone()),
            slots: Vec::new(),
            candidates: Vec::new(),
            clock: 0,
            max,
            hasher,
        }
    }

    /// How to write `topic`. Call it only when the packet will surely be sent: what it answers is
    /// remembered.
    pub(crate) fn assign(&mut self, topic: &[u8]) -> Alias {
        // An alias costs three bytes of property; shorter topics gain nothing.
        if self.max == 0 || topic.len() <= 3 {
            return Alias::None;
        }
        self.clock += 1;
        if let Some(&number) = self.numbers.get(topic) {
            if let Some(slot) = self.slots.get_mut(usize::from(number) - 1) {
                slot.1 = self.clock;
            }
            return Alias::Use(number);
        }
        if self.slots.len() < usize::from(self.max) {
            self.slots.push((topic.into(), self.clock));
            let Ok(number) = u16::try_from(self.slots.len()) else { return Alias::None };
            self.numbers.insert(topic.into(), number);
            return Alias::Set(number);
        }
        let hash = self.hasher.hash_one(topic);
        let Some(seen) = self.candidates.iter().position(|&c| c == hash) else {
            if self.candidates.len() == CANDIDATES {
                self.candidates.remove(0);
            }
            self.candidates.push(hash);
            return Alias::None;
        };
        self.candidates.remove(seen);
        let oldest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.1).map(|(index, _)| index);
        let Some(slot) = oldest.and_then(|index| self.slots.get_mut(index)) else { return Alias::None };
        let number = self.numbers.remove(&slot.0);
        *slot = (topic.into(), self.clock);
        match number {
            Some(number) => {
                self.numbers.insert(topic.into(), number);
                Alias::Set(number)
            }
            None => Alias::None,
        }
    }
}
