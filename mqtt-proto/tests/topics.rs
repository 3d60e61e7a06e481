//! Topic names, topic filters, and what matches what.

use mqtt_proto::topic::MAX_LEN;
use mqtt_proto::{TopicFilter, TopicName, Violation};
use proptest::prelude::*;

fn name_error(text: &str) -> Option<Violation> {
    TopicName::new(text).err().map(|e| e.violation())
}

fn filter_error(text: &str) -> Option<Violation> {
    TopicFilter::new(text).err().map(|e| e.violation())
}

fn matches(filter: &str, topic: &str) -> bool {
    TopicFilter::new(filter).unwrap().matches(TopicName::new(topic).unwrap())
}

/// [MQTT-4.7.0-1] [MQTT-4.7.1-1] of 3.1.1 [MQTT-4.7.3-1] of both
#[test]
fn names_have_no_wildcards_and_are_not_empty() {
    for good in ["a", "/", "//", " ", "a b/c", "$SYS/x", "$share/g/a", "\u{feff}", "ä/ö"] {
        assert_eq!(name_error(good), None, "{good}");
    }
    for wildcard in ["+", "#", "a/+/b", "a/#", "a+", "#a"] {
        assert_eq!(name_error(wildcard), Some(Violation::TopicWildcard), "{wildcard}");
    }
    assert_eq!(name_error(""), Some(Violation::TopicEmpty));
}

/// [MQTT-4.7.3-2] of both
#[test]
fn neither_holds_nul() {
    for at in [0, 1, 15, 16, 17, 31, 32, 33, 63] {
        let mut text = "x".repeat(64);
        text.replace_range(at..=at, "\0");
        assert_eq!(name_error(&text), Some(Violation::StringNul), "{at}");
        assert_eq!(filter_error(&text), Some(Violation::StringNul), "{at}");
    }
    assert_eq!(filter_error("$share/g\0/a"), Some(Violation::StringNul));
    assert_eq!(filter_error("$share/g/a\0"), Some(Violation::StringNul));
}

/// [MQTT-4.7.3-3] of both
#[test]
fn both_have_at_most_65535_bytes() {
    let longest = "ä".repeat(MAX_LEN / 2) + "x";
    assert_eq!(longest.len(), 65_535);
    assert_eq!((name_error(&longest), filter_error(&longest)), (None, None));
    assert!(matches(&longest, &longest));
    let longer = longest + "x";
    assert_eq!(name_error(&longer), Some(Violation::StringTooLong));
    assert_eq!(filter_error(&longer), Some(Violation::StringTooLong));
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.1-2] of 3.1.1 [MQTT-4.7.1-3] of 3.1.1
#[test]
fn wildcards_fill_their_level() {
    for good in ["#", "+", "+/+", "/+", "+/", "a/#", "+/#", "/#", "a/+/b", "a//#", "$SYS/#", "a b/+"] {
        assert_eq!(filter_error(good), None, "{good}");
    }
    for hash in ["a#", "#a", "##", "#/", "#/a", "a/#/b", "a/b#", "a/#b", "/#/", "+/#/+"] {
        assert_eq!(filter_error(hash), Some(Violation::FilterHash), "{hash}");
    }
    for plus in ["a+", "+a", "++", "a/b+", "a/+b/c", "+b/#", "a/++", "a/+#"] {
        assert_eq!(filter_error(plus), Some(Violation::FilterPlus), "{plus}");
    }
    assert_eq!(filter_error(""), Some(Violation::TopicEmpty));
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn shared_filters_have_a_name_and_a_filter() {
    for (text, share_name, filter) in [
        ("$share/g/a", "g", "a"),
        ("$share/g/+/b/#", "g", "+/b/#"),
        ("$share/g//", "g", "/"),
        ("$share/g//a", "g", "/a"),
        ("$share/$x/$SYS/#", "$x", "$SYS/#"),
        ("$share/g/$share/h/a", "g", "$share/h/a"),
    ] {
        let shared = TopicFilter::new(text).unwrap().shared().unwrap_or_else(|| panic!("{text}"));
        assert_eq!((shared.share_name, shared.filter.as_str()), (share_name, filter));
    }
    for broken in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a", "$share/+/a"]
    {
        assert_eq!(filter_error(broken), Some(Violation::ShareName), "{broken}");
    }
    assert_eq!(filter_error("$share/g/a#"), Some(Violation::FilterHash));
    assert_eq!(filter_error("$share/g/a/+b"), Some(Violation::FilterPlus));
    for ordinary in ["$share", "$Share/g/a", "$shared/g/a", "/$share/g/a", "$queue/a"] {
        assert_eq!(TopicFilter::new(ordinary).unwrap().shared(), None, "{ordinary}");
    }
}

#[test]
fn wildcards_are_looked_for_behind_the_share_name() {
    let has = |filter| TopicFilter::new(filter).unwrap().has_wildcard();
    assert!(has("#") && has("a/+") && has("$share/g/+") && has("$share/g/a/#"));
    assert!(!has("a/b") && !has("$share/g/a"));
}

/// The examples of the standard.
/// [MQTT-4.7.3-4] of both
#[test]
fn filters_match_as_the_standard_says() {
    for topic in
        ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
    {
        assert!(matches("sport/tennis/player1/#", topic), "{topic}");
    }
    assert!(matches("sport/#", "sport"));
    assert!(!matches("sport/#", "sports"));
    assert!(matches("sport/tennis/+", "sport/tennis/player1"));
    assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
    assert!(!matches("sport/+", "sport"));
    assert!(matches("sport/+", "sport/"));
    assert!(matches("+/+", "/finance") && matches("/+", "/finance") && !matches("+", "/finance"));
    assert!(matches("#", "/") && matches("+/+", "/") && matches("/", "/") && !matches("/", "//"));
    assert!(!matches("ACCOUNTS", "Accounts") && !matches("a", "a "));
    // The same letter in two encodings.
    assert!(!matches("\u{e4}", "a\u{308}"));
}

/// [MQTT-4.7.2-1] of both
#[test]
fn filters_with_a_wildcard_in_front_do_not_match_dollar_topics() {
    assert!(
        !matches("#", "$SYS/a") && !matches("+/a", "$SYS/a") && !matches("+", "$") && !matches("+/#", "$x/y")
    );
    assert!(matches("$SYS/#", "$SYS/a") && matches("$SYS/+", "$SYS/a") && matches("$SYS/#", "$SYS"));
    assert!(matches("a/#", "a/$b") && matches("+/$b", "a/$b"));
    // For a shared filter, what counts is what stands behind the share name.
    assert!(matches("$share/g/#", "a") && !matches("$share/g/#", "$SYS/a"));
    assert!(matches("$share/g/$SYS/#", "$SYS/a") && !matches("$share/g/a", "$share/g/a"));
}

#[test]
fn thousands_of_levels_are_no_burden() {
    let deep = "/".repeat(30_000);
    assert_eq!((name_error(&deep), filter_error(&deep)), (None, None));
    assert!(matches(&deep, &deep) && matches("/#", &deep) && !matches("/+", &deep));
    let pluses = "+/".repeat(30_000) + "+";
    assert_eq!(filter_error(&pluses), None);
    assert!(matches(&pluses, &deep));
    assert!(!matches(&(pluses + "/+"), &deep));
}

/// Matching, told the slow way: level by level, from the front, with the rest by recursion.
fn naive(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) | (["#"], _) => true,
        (["+", f @ ..], [_, t @ ..]) => naive(f, t),
        ([a, f @ ..], [b, t @ ..]) => a == b && naive(f, t),
        _ => false,
    }
}

fn levels(wildcards: bool) -> impl Strategy<Value = String> {
    let alphabet: &[&str] = if wildcards { &["a", "b", "", "$x", "+", "#"] } else { &["a", "b", "", "$x"] };
    prop::collection::vec(prop::sample::select(alphabet), 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    #[test]
    fn matching_agrees_with_the_naive_matcher(filter in levels(true), topic in levels(false)) {
        prop_assume!(!topic.is_empty());
        let Ok(checked) = TopicFilter::new(&filter) else { return Ok(()) };
        let hidden = topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
        let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
        prop_assert_eq!(checked.matches(TopicName::new(&topic).unwrap()), !hidden && naive(&f, &t));
    }

    #[test]
    fn a_filter_is_valid_if_each_of_its_levels_is(filter in "[ab/+#$\0]{0,40}") {
        let levels: Vec<_> = filter.split('/').collect();
        let valid = !filter.is_empty() && !filter.contains('\0') && levels.iter().enumerate().all(|(i, level)| {
            let last = i + 1 == levels.len();
            !level.contains(['+', '#']) || *level == "+" || *level == "#" && last
        });
        prop_assert_eq!(TopicFilter::new(&filter).is_ok(), valid);
    }

    #[test]
    fn a_name_is_valid_if_it_has_no_wildcard(name in "\\PC{0,80}[ab/+#\0]{0,3}") {
        let valid = !name.is_empty() && !name.contains(['+', '#', '\0']);
        prop_assert_eq!(TopicName::new(&name).is_ok(), valid);
    }
}
