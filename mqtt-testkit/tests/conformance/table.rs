//! The statements, and what is written down about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A version of the standard that numbers its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V311,
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}

impl Version {
    fn parse(text: &str) -> Self {
        match text {
            "3.1.1" => Self::V311,
            "5.0" => Self::V5,
            other => panic!("{other:?} is no version"),
        }
    }
}

/// A statement of one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) version: Version,
    pub(crate) number: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] of {}", self.number, self.version)
    }
}

#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) id: Id,
    pub(crate) role: &'static str,
    pub(crate) requirement: &'static str,
}

/// The two tables, in their order.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) all: Vec<Statement>,
    known: BTreeSet<Id>,
    same: BTreeMap<Id, Vec<Id>>,
}

/// The rows of a table, without its header, cut at the tabs.
fn rows(text: &'static str, columns: usize) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().skip(1).map(move |line| {
        let row: Vec<_> = line.split('\t').collect();
        assert_eq!(row.len(), columns, "{line}");
        row
    })
}

impl Statements {
    pub(crate) fn read() -> Self {
        let mut all = Vec::new();
        for (version, text) in [
            (Version::V311, include_str!("../../spec/mqtt-3.1.1.tsv")),
            (Version::V5, include_str!("../../spec/mqtt-5.0.tsv")),
        ] {
            for row in rows(text, 5) {
                let id = Id { version, number: row[0].to_owned() };
                assert!(matches!(row[1], "client" | "server" | "both"), "{row:?}");
                all.push(Statement { id, role: row[1], requirement: row[2] });
            }
        }
        let known: BTreeSet<Id> = all.iter().map(|statement| statement.id.clone()).collect();
        assert_eq!(known.len(), all.len(), "a statement is listed twice");
        let mut same: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        for row in rows(include_str!("../../spec/same.tsv"), 2) {
            let old = Id { version: Version::V311, number: row[0].to_owned() };
            let new = Id { version: Version::V5, number: row[1].to_owned() };
            assert!(known.contains(&old) && known.contains(&new), "{row:?}");
            same.entry(old).or_default().push(new);
        }
        Self { all, known, same }
    }

    pub(crate) fn contains(&self, id: &Id) -> bool {
        self.known.contains(id)
    }

    /// What 5.0 has for a statement of 3.1.1.
    pub(crate) fn same_as(&self, old: &Id) -> &[Id] {
        self.same.get(old).map_or(&[], Vec::as_slice)
    }

    /// Whether a number means the same in both versions.
    pub(crate) fn means_the_same(&self, number: &str) -> bool {
        let id = |version| Id { version, number: number.to_owned() };
        self.same_as(&id(Version::V311)).contains(&id(Version::V5))
    }
}

/// Why no test can exist, by statement.
pub(crate) fn exceptions() -> Vec<(Id, &'static str)> {
    let list = rows(include_str!("../../spec/exceptions.tsv"), 3);
    list.map(|row| (Id { version: Version::parse(row[1]), number: row[0].to_owned() }, row[2])).collect()
}

/// A test that was seen to fail.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) id: Id,
    pub(crate) test: &'static str,
    pub(crate) what: &'static str,
}

pub(crate) fn broken() -> Vec<Broken> {
    let list = rows(include_str!("../../spec/broken.tsv"), 4);
    list.map(|row| Broken {
        id: Id { version: Version::parse(row[1]), number: row[0].to_owned() },
        test: row[2],
        what: row[3],
    })
    .collect()
}
