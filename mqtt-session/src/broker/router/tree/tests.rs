use super::*;
use crate::Seed;
use alloc::collections::{BTreeMap, BTreeSet};
use mqtt_proto::{TopicFilter, TopicName};
use proptest::prelude::*;

#[derive(Debug, Default)]
struct Filter(bool, Wildcards);

impl Value for Filter {
    fn is_vacant(&self) -> bool {
        !self.0
    }

    fn wildcards(&self) -> Wildcards {
        self.1
    }

    fn wildcards_mut(&mut self) -> Option<&mut Wildcards> {
        Some(&mut self.1)
    }
}

#[derive(Debug, Default)]
struct Topic(bool);

impl Value for Topic {
    fn is_vacant(&self) -> bool {
        !self.0
    }

    fn wildcards(&self) -> Wildcards {
        Wildcards::NONE
    }

    fn wildcards_mut(&mut self) -> Option<&mut Wildcards> {
        None
    }
}

const LEVELS: [&str; 6] = ["a", "b", "", "a level of more than fourteen bytes", "$x", "é"];

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&LEVELS[..]), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => prop::sample::select(&LEVELS[..]), 1 => Just("+")];
    (prop::collection::vec(level, 0..4), 0..4)
        .prop_map(|(mut levels, last)| {
            if last == 0 {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

/// Nodes that are needed for these paths, and those of them that a search finds by their hash: children of a node
/// that has several.
fn needed<'p>(paths: impl Iterator<Item = &'p String>) -> usize {
    let mut children: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut wildcards = BTreeSet::new();
    for path in paths {
        let mut parent = String::new();
        for level in path.split('/') {
            if matches!(level, "+" | "#") {
                wildcards.insert(parent.clone() + level);
            } else {
                children.entry(parent.clone()).or_default().insert(level);
            }
            parent += level;
            parent.push('/');
        }
    }
    let lens = || children.values().map(BTreeSet::len);
    1 + wildcards.len() + lens().sum::<usize>() + lens().filter(|&len| len > 1).sum::<usize>()
}

/// Makes the paths, and removes those that are there, in this order; calls `look` after each.
fn come_and_go<V: Value>(
    paths: &[String],
    order: &[prop::sample::Index],
    set: impl Fn(&mut V, bool),
    mut look: impl FnMut(&Tree<V>, &BTreeSet<String>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut tree = Tree::new(KeyedHash::new(Seed::default(), 0));
    let mut there = BTreeSet::new();
    for index in order {
        let path = index.get(paths);
        let is_there = there.remove(path);
        let node = if is_there { tree.find(path).unwrap() } else { tree.make(path) };
        set(tree.get_mut(node).unwrap(), !is_there);
        if !is_there {
            there.insert(path.clone());
        }
        tree.prune(node);
        prop_assert_eq!(tree.len(), needed(there.iter()), "{:?}", &there);
        look(&tree, &there)?;
    }
    Ok(())
}

/// The paths of the nodes that a walk visited and that are there for their own sake.
fn paths<V: Value>(tree: &Tree<V>, visited: &[NodeId]) -> Vec<String> {
    let own = visited.iter().filter(|&&node| tree.get(node).is_some_and(|value| !value.is_vacant()));
    let mut paths: Vec<_> = own.map(|&node| tree.path(node)).collect();
    paths.sort();
    paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever comes and goes, a topic finds the filters that match it, and nothing else stays.
    #[test]
    fn filters_are_found_by_topics(
        filters in prop::collection::vec(filter(), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..120),
        topics in prop::collection::vec(topic(), 1..20),
    ) {
        let mut walk = Walk::default();
        let set = |value: &mut Filter, is_there| value.0 = is_there;
        come_and_go(&filters, &order, set, |tree, there| {
            for topic in &topics {
                let mut visited = Vec::new();
                tree.matching(topic.as_bytes(), &mut walk, |node| visited.push(node));
                let name = TopicName::new(topic).unwrap();
                let matches = |filter: &&String| TopicFilter::new(filter).unwrap().matches(name);
                let wanted: Vec<String> = there.iter().filter(matches).cloned().collect();
                prop_assert_eq!(paths(tree, &visited), wanted, "{}", topic);
            }
            Ok(())
        })?;
    }

    /// The same for topics and a filter.
    #[test]
    fn topics_are_found_by_filters(
        topics in prop::collection::vec(topic(), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..120),
        filters in prop::collection::vec(filter(), 1..20),
    ) {
        let mut walk = Walk::default();
        let set = |value: &mut Topic, is_there| value.0 = is_there;
        come_and_go(&topics, &order, set, |tree, there| {
            for filter in &filters {
                let mut visited = Vec::new();
                tree.matched_by(filter, &mut walk, |node| visited.push(node));
                let parsed = TopicFilter::new(filter).unwrap();
                let matches = |topic: &&String| parsed.matches(TopicName::new(topic).unwrap());
                let wanted: Vec<String> = there.iter().filter(matches).cloned().collect();
                prop_assert!(wanted.is_empty() || tree.may_be_matched_by(filter));
                prop_assert_eq!(paths(tree, &visited), wanted, "{}", filter);
            }
            Ok(())
        })?;
    }
}
