//! Which test holds which statement of the standards. See "Claims" in the documentation of the crate.
#![allow(unreachable_pub, reason = "a test program has no public items")]

mod scan;
mod table;

use scan::{Of, Test, mentions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::LazyLock;
use table::{Broken, Id, Statements, Version};

/// What starts the line of a doc comment that says why a test claims more than three statements of one
/// version.
const MORE: &str = "More than three:";

static MODEL: LazyLock<Model> = LazyLock::new(Model::read);

struct Model {
    statements: Statements,
    tests: Vec<Test>,
    claims: BTreeMap<Id, Vec<String>>,
    enforced: BTreeMap<Id, BTreeSet<String>>,
    exceptions: BTreeMap<Id, &'static str>,
    broken: Vec<Broken>,
}

impl Model {
    fn read() -> Self {
        let statements = Statements::read();
        let tests = scan::tests();
        let mut claims: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for test in &tests {
            for id in mentions(&test.doc).iter().flat_map(scan::Mention::ids) {
                claims.entry(id).or_default().push(test.name.clone());
            }
        }
        let mut enforced: BTreeMap<Id, BTreeSet<String>> = BTreeMap::new();
        for citation in scan::citations(&statements).0 {
            enforced.entry(citation.id).or_default().insert(citation.file);
        }
        for statement in statements.all.iter().filter(|s| s.id.version == Version::V311) {
            for same in statements.same_as(&statement.id) {
                let files = enforced.get(same).cloned().unwrap_or_default();
                enforced.entry(statement.id.clone()).or_default().extend(files);
            }
        }
        let exceptions = table::exceptions().into_iter().collect();
        Self { statements, tests, claims, enforced, exceptions, broken: table::broken() }
    }

    /// The page that shows it all.
    fn page(&self) -> String {
        let mut page = String::from(PREFACE);
        for (version, title) in [(Version::V311, "MQTT 3.1.1"), (Version::V5, "MQTT 5.0")] {
            let of_version: Vec<_> = self.statements.all.iter().filter(|s| s.id.version == version).collect();
            let count = |what: &dyn Fn(&Id) -> bool| of_version.iter().filter(|s| what(&s.id)).count();
            let tested = count(&|id| self.claims.contains_key(id));
            let excepted = count(&|id| self.exceptions.contains_key(id));
            let seen = count(&|id| self.broken.iter().any(|broken| broken.id == *id));
            let _ = write!(
                page,
                "\n## {title}\n\n{} statements: {tested} tested ({seen} of them seen to fail with the rule \
                 broken), {excepted} without a test.\n\n\
                 | Statement | Role | Demands | Enforced in | Tests | Seen to fail |\n\
                 | --- | --- | --- | --- | --- | --- |\n",
                of_version.len()
            );
            for statement in of_version {
                let id = &statement.id;
                let code = |text: &String| format!("`{text}`");
                let files: Vec<_> = self.enforced.get(id).into_iter().flatten().map(code).collect();
                let tests: Vec<_> = self.claims.get(id).into_iter().flatten().map(code).collect();
                let tests = match self.exceptions.get(id) {
                    Some(reason) => format!("none: {reason}"),
                    None => tests.join("<br>"),
                };
                let seen: Vec<_> = self.broken.iter().filter(|broken| broken.id == *id).collect();
                let function = |test: &str| test.rsplit("::").next().unwrap_or_default().to_owned();
                let seen: Vec<_> =
                    seen.iter().map(|b| format!("`{}`: {}", function(b.test), b.what)).collect();
                let _ = writeln!(
                    page,
                    "| {} | {} | {} | {} | {tests} | {} |",
                    id.number,
                    statement.role,
                    statement.requirement.replace('|', "\\|"),
                    files.join("<br>"),
                    seen.join("<br>"),
                );
            }
        }
        page
    }
}

const PREFACE: &str = "# Conformance

Each numbered statement of the OASIS standards of MQTT 3.1.1 and MQTT 5.0: whom it binds, what it demands in our words,
which files cite it where they enforce it, which tests claim it, and which of those were seen to fail while the rule was
broken on purpose. Where no test can exist, the reason stands in place of the tests.

This page is generated. `cargo test -p mqtt-testkit --test conformance` fails when it is out of date, when a statement is
neither claimed nor excepted, and when a claim names no statement; `UPDATE=1` in front of that command writes the page
anew. How a test claims a statement is told in the documentation of `mqtt-testkit`.
";

fn none<T: std::fmt::Display>(what: &str, list: impl IntoIterator<Item = T>) {
    let list: Vec<String> = list.into_iter().map(|item| item.to_string()).collect();
    assert!(list.is_empty(), "{} {what}:\n{}", list.len(), list.join("\n"));
}

#[test]
fn every_statement_is_claimed_or_excepted() {
    let model = &*MODEL;
    let open = |id: &Id| !model.claims.contains_key(id) && !model.exceptions.contains_key(id);
    let uncovered = model.statements.all.iter().filter(|statement| open(&statement.id));
    none(
        "statements without a test or a reason",
        uncovered.map(|s| format!("{} ({}): {}", s.id, s.role, s.requirement)),
    );
}

#[test]
fn claims_name_statements() {
    let model = &*MODEL;
    let unknown = model.claims.iter().filter(|(id, _)| !model.statements.contains(id));
    none("claims of no statement", unknown.map(|(id, tests)| format!("{id}: {}", tests.join(", "))));
}

#[test]
fn claims_of_both_versions_mean_one_thing() {
    let model = &*MODEL;
    let mut wrong = Vec::new();
    for test in &model.tests {
        for mention in mentions(&test.doc).iter().filter(|mention| mention.of == Of::Both) {
            if !model.statements.means_the_same(&mention.id) {
                wrong.push(format!("{}: [{}] differs between 3.1.1 and 5.0", test.name, mention.id));
            }
        }
    }
    none("claims of both versions that mean two things", wrong);
}

#[test]
fn a_test_that_claims_more_than_three_says_why() {
    let model = &*MODEL;
    let many = model.tests.iter().filter(|test| {
        let reason = test.doc.lines().any(|line| line.trim().starts_with(MORE));
        let ids: Vec<Id> = mentions(&test.doc).iter().flat_map(scan::Mention::ids).collect();
        let count = |version| ids.iter().filter(|id| id.version == version).count();
        count(Version::V311).max(count(Version::V5)) > 3 && !reason
    });
    none("tests that claim more than three statements without a reason", many.map(|test| &test.name));
}

#[test]
fn names_of_tests_are_unique() {
    let model = &*MODEL;
    let mut seen = BTreeSet::new();
    let again = model.tests.iter().filter(|test| !seen.insert(&test.name));
    none("tests with the name of another", again.map(|test| &test.name));
    assert!(model.tests.len() > 300, "only {} tests were found", model.tests.len());
}

#[test]
fn sources_cite_statements() {
    let (_, unknown) = scan::citations(&Statements::read());
    none("citations of no statement", unknown);
}

#[test]
fn exceptions_are_statements_without_a_claim() {
    let model = &*MODEL;
    let listed = table::exceptions();
    assert_eq!(listed.len(), model.exceptions.len(), "an exception is listed twice");
    let wrong = listed.iter().filter(|(id, reason)| {
        !model.statements.contains(id) || model.claims.contains_key(id) || reason.trim().len() < 20
    });
    none("exceptions that are unknown, claimed or without a reason", wrong.map(|(id, _)| id));
}

#[test]
fn what_was_seen_to_fail_is_claimed() {
    let model = &*MODEL;
    let claimed = |b: &Broken| model.claims.get(&b.id).is_some_and(|tests| tests.iter().any(|t| t == b.test));
    let wrong = model.broken.iter().filter(|b| !claimed(b) || b.what.trim().is_empty());
    none("rows of broken.tsv that no test claims", wrong.map(|b| format!("{}: {}", b.id, b.test)));
}

#[test]
fn the_page_is_up_to_date() {
    let page = MODEL.page();
    let path = scan::root().join("docs/conformance.md");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("docs");
        std::fs::write(&path, page).expect("the page is written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(
        written == page,
        "docs/conformance.md is not up to date: UPDATE=1 cargo test -p mqtt-testkit --test conformance"
    );
}
