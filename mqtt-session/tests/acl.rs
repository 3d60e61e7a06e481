//! Tables of rights, without a broker.

use mqtt_session::acl::{Access, Acl, Action, Identity, Mode, Reason, Who};
use proptest::prelude::*;

const MODES: [Mode; 2] = [Mode::Strict, Mode::Mosquitto];

/// Lines `WHO ACCESS FILTER`; WHO is a name, `-` for anonymous or `*` for a pattern.
fn acl(mode: Mode, lines: &str) -> Acl {
    let mut acl = Acl::new(mode);
    for (number, line) in (1..).zip(lines.lines()) {
        let mut words = line.trim().splitn(3, ' ');
        let who = match words.next().unwrap() {
            "-" => Who::Anonymous,
            "*" => Who::Pattern,
            name => Who::User(name),
        };
        let access = match words.next().unwrap() {
            "read" => Access::Read,
            "write" => Access::Write,
            "readwrite" => Access::ReadWrite,
            "subscribe" => Access::Subscribe,
            _ => Access::Deny,
        };
        acl.add(who, access, words.next().unwrap(), number).unwrap();
    }
    acl
}

fn client<'a>(user_name: &'a str, client_id: &'a str) -> Identity<'a> {
    Identity { user_name: (user_name != "-").then_some(user_name), client_id }
}

fn reads(acl: &Acl, user: &str, topic: &str) -> bool {
    acl.allows(&client(user, "c"), Action::Read(topic))
}

#[test]
fn a_table_without_rules_denies_everything_and_an_open_one_nothing() {
    for mode in MODES {
        assert!(!reads(&Acl::new(mode), "u", "a") && !reads(&Acl::new(mode), "-", "a"));
    }
    let open = Acl::open();
    let open = open.decide(&client("-", ""), Action::Write("a"));
    assert!(open.allowed && open.reason == Reason::Open);
}

#[test]
fn users_have_their_own_rules_and_the_nameless_theirs() {
    for mode in MODES {
        let acl = acl(mode, "- read public/#\nann readwrite home/+/lamp\nann write log");
        assert!(reads(&acl, "-", "public") && reads(&acl, "-", "public/a/b"));
        assert!(!reads(&acl, "ann", "public/a") && !reads(&acl, "bob", "home/a/lamp"));
        assert!(reads(&acl, "ann", "home/a/lamp") && !reads(&acl, "ann", "home/a/b/lamp"));
        assert!(!reads(&acl, "ann", "log"), "the right to write is none to read");
        assert!(acl.allows(&client("ann", "c"), Action::Write("log")));
    }
}

#[test]
fn topics_with_a_dollar_need_a_rule_with_one() {
    for mode in MODES {
        let acl = acl(mode, "u read #\nv read $SYS/#\nu read +/x\n* read %u/#");
        assert!(!reads(&acl, "u", "$SYS/a") && !reads(&acl, "u", "$SYS/x") && reads(&acl, "v", "$SYS/a"));
        assert!(!reads(&acl, "$SYS", "$SYS/a"), "a name is not a way in");
    }
}

#[test]
fn patterns_stand_for_names() {
    for mode in MODES {
        let acl = acl(mode, "* read dev/%c/in\n* write user/%u/#\n* read all/#\nu read %u/%c");
        let who = client("ann", "d1");
        assert!(acl.allows(&who, Action::Read("dev/d1/in")) && !acl.allows(&who, Action::Read("dev/d2/in")));
        assert!(
            acl.allows(&who, Action::Write("user/ann/a")) && !acl.allows(&who, Action::Write("user/bob/a"))
        );
        let nameless = client("-", "d1");
        assert!(
            !acl.allows(&nameless, Action::Write("user//a")) && acl.allows(&nameless, Action::Read("all/a"))
        );
        assert!(reads(&acl, "u", "%u/%c"), "in a user's own rules they are nothing special");
    }
}

#[test]
fn what_overrules_what() {
    let lines = "u read a/#\nu deny a/secret\n* deny a/public\n* read b";
    let ours = acl(Mode::Strict, lines);
    let theirs = acl(Mode::Mosquitto, lines);
    assert!(!reads(&ours, "u", "a/secret") && !reads(&theirs, "u", "a/secret"));
    assert!(!reads(&ours, "u", "a/public"), "a deny is a deny");
    assert!(reads(&theirs, "u", "a/public"), "the user's own rules come before the patterns");
    let verdict = ours.decide(&client("u", "c"), Action::Read("a/public"));
    assert!(matches!(verdict.reason, Reason::Rule(rule) if rule.line() == 3 && rule.is_pattern()));
}

#[test]
fn names_with_wildcards_open_nothing() {
    let lines = "* read dev/%c/#\n* read all\n* deny no/%c\n+ read own";
    for id in ["+", "#", "a+", "dev/#"] {
        let theirs = acl(Mode::Mosquitto, lines);
        let verdict = theirs.decide(&client("u", id), Action::Read("all"));
        assert_eq!((verdict.allowed, verdict.reason), (false, Reason::WildcardInName));
        assert!(
            theirs.allows(&client("+", id), Action::Read("own")),
            "what the user's own rules allow stays"
        );
        let ours = acl(Mode::Strict, lines);
        assert!(ours.allows(&client("u", id), Action::Read("all")), "only names are passed over");
        assert!(!ours.allows(&client("u", id), Action::Read("dev/x/y")));
    }
    let ours = acl(Mode::Strict, "* read a/%c/#\n* read a/#\n* deny a/%c");
    assert!(!ours.allows(&client("u", "x/y"), Action::Read("a/x/y")), "a deny counts for every name");
    assert!(!acl(Mode::Strict, "* read a/%c/#").allows(&client("u", "x/y"), Action::Read("a/x/y/z")));
    assert!(acl(Mode::Mosquitto, "* read a/%c/#").allows(&client("u", "x/y"), Action::Read("a/x/y/z")));
}

#[test]
fn a_subscription_is_granted_if_all_of_it_is() {
    let lines = "u read a/#\nu read b/+/c\nu subscribe #\nu deny a/x/#\nv read +/k\nv readwrite w\nw write a";
    let ours = acl(Mode::Strict, lines);
    let may = |user, filter| ours.allows(&client(user, "c"), Action::Subscribe(filter));
    for filter in ["a", "a/#", "a/+", "a/b", "b/+/c", "b/1/c", "#", "+/+", "zzz"] {
        assert!(may("u", filter), "{filter}");
    }
    for filter in ["a/x", "a/x/#", "a/x/y", "$SYS/#"] {
        assert!(!may("u", filter), "{filter}");
    }
    assert!(may("v", "a/k") && may("v", "+/k") && may("v", "w"));
    for filter in ["#", "+/#", "+/+", "k", "a", "+"] {
        assert!(!may("v", filter), "{filter}");
    }
    assert!(!may("w", "a"), "the right to write is none to subscribe");
    assert!(!reads(&ours, "u", "zzz"), "what is only subscribed to is not read");
    let theirs = acl(Mode::Mosquitto, "");
    assert!(theirs.allows(&client("u", "c"), Action::Subscribe("#")));
}

#[test]
fn what_is_no_filter_is_no_rule() {
    for filter in ["", "a#", "a/#/b", "+a"] {
        assert!(Acl::default().add(Who::Anonymous, Access::Read, filter, 1).is_err(), "{filter}");
    }
}

/// Few letters, so that much of it matches.
fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => "[ab]", 1 => Just("+".to_owned()), 1 => Just(String::new())];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("empty", |(levels, hash)| {
        let text = levels.join("/") + if hash { "/#" } else { "" };
        (!text.is_empty()).then_some(text)
    })
}

proptest! {
    /// If a rule covers a filter, every topic that the filter matches may be read; so whoever is
    /// granted a subscription gets all of it.
    #[test]
    fn what_a_subscription_brings_may_be_read(rule in filter(), wanted in filter(), topic in "[ab]?(/[ab]?){0,3}") {
        let acl = acl(Mode::Strict, &format!("u read {rule}"));
        let covered = acl.allows(&client("u", "c"), Action::Subscribe(&wanted));
        let filter = mqtt_proto::TopicFilter::new(&wanted).unwrap();
        if let Ok(name) = mqtt_proto::TopicName::new(&topic) && covered && filter.matches(name) {
            prop_assert!(reads(&acl, "u", &topic), "{rule} covers {wanted}, which matches {topic}");
        }
    }

    /// A rule's filter means what a subscription's means.
    #[test]
    fn a_rule_fits_what_a_subscription_would_match(rule in filter(), topic in "[$ab]?(/[ab]?){0,3}") {
        for mode in MODES {
            let acl = acl(mode, &format!("u read {rule}"));
            if let Ok(name) = mqtt_proto::TopicName::new(&topic) {
                let filter = mqtt_proto::TopicFilter::new(&rule).unwrap();
                prop_assert_eq!(reads(&acl, "u", &topic), filter.matches(name));
            }
        }
    }
}
