//! Deciding by a table.

use super::{Access, Acl, Action, Identity, Mode, Reason, Rule, Rules, Verdict};

/// A level of a rule's filter for one client.
enum Level<'a> {
    /// Exactly this, whatever its characters.
    Text(&'a str),
    Plus,
    Hash,
}

impl Acl {
    /// Whether `who` may do it, and why. `action` is about a topic or filter that was checked.
    #[must_use]
    pub fn decide(&self, who: &Identity<'_>, action: Action<'_>) -> Verdict<'_> {
        if self.open {
            return Verdict { allowed: true, reason: Reason::Open };
        }
        match self.mode {
            Mode::Strict => self.decide_strictly(who, action),
            Mode::Mosquitto => self.decide_like_mosquitto(who, action),
        }
    }

    /// Whether `who` may do it.
    #[must_use]
    pub fn allows(&self, who: &Identity<'_>, action: Action<'_>) -> bool {
        self.decide(who, action).allowed
    }

    fn decide_strictly(&self, who: &Identity<'_>, action: Action<'_>) -> Verdict<'_> {
        let lists = [self.own(who.user_name), Some(&self.patterns)];
        let fits = |rule: &&Rule| {
            let usable = rule.access == Access::Deny || !rule.pattern || names_are_plain(rule, who);
            usable && rule.fits(who, action.topic())
        };
        let mut denying = lists.into_iter().flatten().flat_map(|rules| &rules.denying);
        if let Some(rule) = denying.find(fits) {
            return Verdict { allowed: false, reason: Reason::Rule(rule) };
        }
        let mut allowing = lists.into_iter().flatten().flat_map(|rules| &rules.allowing);
        match allowing.find(|rule| rule.access.gives(action) && fits(rule)) {
            Some(rule) => Verdict { allowed: true, reason: Reason::Rule(rule) },
            None => Verdict { allowed: false, reason: Reason::NoRule },
        }
    }

    fn decide_like_mosquitto(&self, who: &Identity<'_>, action: Action<'_>) -> Verdict<'_> {
        if matches!(action, Action::Subscribe(_)) {
            return Verdict { allowed: true, reason: Reason::SubscribeIsFree };
        }
        if let Some(verdict) = self.own(who.user_name).and_then(|rules| rules.first(who, action)) {
            return verdict;
        }
        if !self.patterns.is_empty() && has_wildcard(who) {
            return Verdict { allowed: false, reason: Reason::WildcardInName };
        }
        self.patterns.first(who, action).unwrap_or(Verdict { allowed: false, reason: Reason::NoRule })
    }
}

impl Rules {
    /// What the first rule that fits says.
    fn first(&self, who: &Identity<'_>, action: Action<'_>) -> Option<Verdict<'_>> {
        if let Some(rule) = self.denying.iter().find(|rule| rule.fits(who, action.topic())) {
            return Some(Verdict { allowed: false, reason: Reason::Rule(rule) });
        }
        let fits = |rule: &&Rule| rule.access.gives(action) && rule.fits(who, action.topic());
        let rule = self.allowing.iter().find(fits)?;
        Some(Verdict { allowed: true, reason: Reason::Rule(rule) })
    }
}

impl Access {
    /// Whether a rule with this access allows `action` where it fits.
    const fn gives(self, action: Action<'_>) -> bool {
        match self {
            Self::Read => matches!(action, Action::Read(_) | Action::Subscribe(_)),
            Self::Write => matches!(action, Action::Write(_)),
            Self::ReadWrite => true,
            Self::Subscribe => matches!(action, Action::Subscribe(_)),
            Self::Deny => false,
        }
    }
}

impl<'a> Action<'a> {
    /// The topic or filter that it is about.
    const fn topic(self) -> &'a str {
        match self {
            Self::Read(topic) | Self::Write(topic) | Self::Subscribe(topic) => topic,
        }
    }
}

impl Rule {
    /// Whether everything that `wanted` (a topic or a filter) stands for is among what the rule is
    /// about. What begins with `$` is the matter of rules that begin with `$`.
    fn fits(&self, who: &Identity<'_>, wanted: &str) -> bool {
        if self.pattern && who.user_name.is_none() && self.has_level("%u") {
            return false;
        }
        if wanted.starts_with('$') && !self.filter.starts_with('$') {
            return false;
        }
        let mut wanted = wanted.split('/');
        for level in self.levels(who) {
            match (level, wanted.next()) {
                // `a/#` covers `a` as well.
                (Level::Hash, _) => return true,
                (_, None | Some("#")) => return false,
                (Level::Plus, Some(_)) => {}
                (Level::Text(text), Some(level)) if text == level && level != "+" => {}
                (Level::Text(_), Some(_)) => return false,
            }
        }
        wanted.next().is_none()
    }

    /// The filter's levels. A name is text, also where it has a `/`, a `+` or a `#`.
    fn levels<'a>(&'a self, who: &Identity<'a>) -> impl Iterator<Item = Level<'a>> + use<'a> {
        let Identity { user_name, client_id } = *who;
        let pattern = self.pattern;
        self.filter.split('/').flat_map(move |level| {
            let (text, is_name) = match level {
                "%u" if pattern => (user_name.unwrap_or_default(), true),
                "%c" if pattern => (client_id, true),
                level => (level, false),
            };
            text.split('/').map(move |part| match part {
                "+" if !is_name => Level::Plus,
                "#" if !is_name => Level::Hash,
                text => Level::Text(text),
            })
        })
    }

    fn has_level(&self, wanted: &str) -> bool {
        self.filter.split('/').any(|level| level == wanted)
    }
}

fn names_are_plain(rule: &Rule, who: &Identity<'_>) -> bool {
    let plain = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
    (!rule.has_level("%c") || plain(who.client_id))
        && (!rule.has_level("%u") || who.user_name.is_some_and(plain))
}

fn has_wildcard(who: &Identity<'_>) -> bool {
    who.user_name.unwrap_or_default().contains(['+', '#']) || who.client_id.contains(['+', '#'])
}
