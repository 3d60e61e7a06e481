//! Access control lists: who may read, write and subscribe to what.
//!
//! A table is made outside, from a file for one, and handed to the broker by
//! [`Broker::set_acls`](crate::Broker::set_acls), which asks it within the machine: no question per
//! packet. Nothing here recurses or allocates while it decides.
//!
//! There are two ways to read a table. [`Mode::Mosquitto`] decides as Mosquitto does, to the letter.
//! [`Mode::Strict`] answers a SUBSCRIBE truthfully, lets no exception be overruled, and takes the
//! names of clients for what they are, whatever characters they have.

mod check;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use mqtt_proto::{EncodeError, TopicFilter};

/// How a table is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// * `deny`, wherever it stands, is stronger than everything else.
    /// * A SUBSCRIBE is granted if a rule that lets read or subscribe covers all of its filter, and
    ///   refused otherwise. What is delivered is what may be read.
    /// * `%u` and `%c` stand for exactly the name; a rule that allows something is passed over for
    ///   names that are empty or contain `/`, `+` or `#`.
    /// * A will that may not be written refuses the connection.
    #[default]
    Strict,
    /// * Every SUBSCRIBE is granted. What is delivered is what may be read.
    /// * The user's own rules decide before the patterns: in each list first those that deny, then
    ///   the others in their order, and the first that fits decides.
    /// * If there are patterns and the user name or the client identifier contains `+` or `#`,
    ///   whatever the user's own rules do not allow is denied.
    /// * A will that may not be written is dropped when it fires.
    Mosquitto,
}

/// What a rule gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Messages may be received.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// The filter and what it covers may be subscribed to, without a right to what matches it: what
    /// arrives is still only what may be read. [`Mode::Strict`] only.
    Subscribe,
    /// Nothing of it.
    Deny,
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who<'a> {
    /// Clients without a user name.
    Anonymous,
    /// Clients with this user name.
    User(&'a str),
    /// All clients; `%u` and `%c` in the filter, each as a whole level, stand for the client's user
    /// name and identifier.
    Pattern,
}

/// A client, as far as its rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity<'a> {
    /// Its user name, if it has one.
    pub user_name: Option<&'a str>,
    /// Its client identifier.
    pub client_id: &'a str,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action<'a> {
    /// Receive a message with this topic.
    Read(&'a str),
    /// Publish a message with this topic.
    Write(&'a str),
    /// Subscribe to this filter, given without `$share/name/`.
    Subscribe(&'a str),
}

/// A decision and what made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: Reason<'a>,
}

/// What made a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason<'a> {
    /// This rule.
    Rule(&'a Rule),
    /// No rule fits, which means no.
    NoRule,
    /// A name with a wildcard, in the presence of patterns ([`Mode::Mosquitto`]).
    WildcardInName,
    /// Subscribing is always allowed ([`Mode::Mosquitto`]).
    SubscribeIsFree,
    /// The table is open: it allows everything.
    Open,
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    access: Access,
    filter: Box<str>,
    line: u32,
    pattern: bool,
}

impl Rule {
    /// What it gives or takes.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// The filter as it was written.
    #[must_use]
    pub const fn filter(&self) -> &str {
        &self.filter
    }

    /// The line that it came from, as [`Acl::add`] was told.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Whether it is a pattern, in which `%u` and `%c` stand for names.
    #[must_use]
    pub const fn is_pattern(&self) -> bool {
        self.pattern
    }
}

/// Rules in the order in which they are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    denying: Vec<Rule>,
    allowing: Vec<Rule>,
}

impl Rules {
    fn add(&mut self, rule: Rule) {
        match rule.access {
            Access::Deny => self.denying.push(rule),
            _ => self.allowing.push(rule),
        }
    }

    const fn is_empty(&self) -> bool {
        self.denying.is_empty() && self.allowing.is_empty()
    }
}

/// A table of rules. Without a rule it denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    mode: Mode,
    open: bool,
    anonymous: Rules,
    users: BTreeMap<Box<str>, Rules>,
    patterns: Rules,
}

impl Acl {
    /// A table without rules.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// A table that allows everything: for those who have no list beside others who have one.
    #[must_use]
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// How it is read.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it allows everything.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// All rules, each with whom it is about. Added in this order to an empty table they make an equal
    /// one.
    pub fn rules(&self) -> impl Iterator<Item = (Who<'_>, &Rule)> {
        let users = self.users.iter().map(|(name, rules)| (Who::User(name), rules));
        let all = core::iter::once((Who::Anonymous, &self.anonymous)).chain(users);
        let all = all.chain(core::iter::once((Who::Pattern, &self.patterns)));
        all.flat_map(|(who, rules)| rules.denying.iter().chain(&rules.allowing).map(move |rule| (who, rule)))
    }

    /// Adds a rule that stands in `line`, for [`Rule::line`].
    ///
    /// # Errors
    /// Names what is wrong if `filter` is no topic filter.
    pub fn add(&mut self, who: Who<'_>, access: Access, filter: &str, line: u32) -> Result<(), EncodeError> {
        TopicFilter::new(filter)?;
        let pattern = who == Who::Pattern;
        let rule = Rule { access, filter: filter.into(), line, pattern };
        match who {
            Who::Anonymous => self.anonymous.add(rule),
            Who::User(name) => self.users.entry(name.into()).or_default().add(rule),
            Who::Pattern => self.patterns.add(rule),
        }
        Ok(())
    }

    /// The rules of clients with this name, or without one.
    fn own(&self, user_name: Option<&str>) -> Option<&Rules> {
        match user_name {
            Some(name) => self.users.get(name),
            None => Some(&self.anonymous),
        }
    }
}
