//! What the sources say: which tests claim which statements, and where they are enforced.

use crate::table::{Id, Statements, Version};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use syn::{Attribute, Expr, Item, Lit, Meta};

/// A test that runs, and what its doc comment says.
#[derive(Debug)]
pub(crate) struct Test {
    /// `package/target::module::function`.
    pub(crate) name: String,
    pub(crate) doc: String,
}

/// A number in the text, and the version that it is said of; `None` means what the text around it
/// leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) id: String,
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The number alone: 5.0.
    V5,
    /// `[MQTT-...] of 3.1.1`
    V311,
    /// `[MQTT-...] of both`
    Both,
}

impl Mention {
    pub(crate) fn ids(&self) -> Vec<Id> {
        let versions: &[Version] = match self.of {
            Of::V5 => &[Version::V5],
            Of::V311 => &[Version::V311],
            Of::Both => &[Version::V311, Version::V5],
        };
        versions.iter().map(|&version| Id { version, number: self.id.clone() }).collect()
    }
}

/// The numbers in brackets, each with the words right behind it.
pub(crate) fn mentions(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("[MQTT-") {
        let rest = &text[at + 1..];
        let Some(end) = rest.find(']') else { continue };
        let after = rest[end + 1..].trim_start();
        let says = |words: &str| {
            after.strip_prefix(words).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        let of = match () {
            () if says("of 3.1.1") => Of::V311,
            () if says("of both") => Of::Both,
            () => Of::V5,
        };
        found.push(Mention { id: rest[..end].to_owned(), of });
    }
    found
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The packages that the workspace lists.
pub(crate) fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let line = manifest.lines().find(|line| line.starts_with("members = ")).expect("a list of members");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory, sorted; none if it does not exist.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// All tests of the workspace that run: those that the module tree of a target reaches, that are not
/// ignored, and that nothing guards but `cfg(test)` and features that are on by default.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for member in members() {
        let dir = root().join(&member);
        let mut targets = Vec::new();
        for name in ["lib", "main"] {
            targets.push((format!("{member}/src"), dir.join(format!("src/{name}.rs"))));
        }
        for path in list(&dir.join("tests")) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let file = if path.is_dir() { path.join("main.rs") } else { path };
            targets.push((format!("{member}/{stem}"), file));
        }
        let mut walk = Walk { features: default_features(&dir), tests: Vec::new() };
        for (name, path) in targets {
            if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
                let modules = path.parent().expect("a directory").to_owned();
                walk.file(&path, &modules, &name);
            }
        }
        tests.append(&mut walk.tests);
    }
    tests
}

fn default_features(package: &Path) -> Vec<String> {
    let manifest = read(&package.join("Cargo.toml"));
    let line = manifest.lines().find(|line| line.starts_with("default = ")).unwrap_or_default();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A walk over the modules of one package.
struct Walk {
    features: Vec<String>,
    tests: Vec<Test>,
}

impl Walk {
    fn file(&mut self, path: &Path, modules: &Path, name: &str) {
        let file = syn::parse_file(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if self.runs(&file.attrs) {
            self.items(&file.items, modules, name);
        }
    }

    fn items(&mut self, items: &[Item], modules: &Path, name: &str) {
        for item in items {
            match item {
                Item::Fn(item) if self.runs(&item.attrs) && item.attrs.iter().any(is_test) => {
                    let name = format!("{name}::{}", item.sig.ident);
                    self.tests.push(Test { name, doc: doc(&item.attrs) });
                }
                Item::Mod(item) if self.runs(&item.attrs) => {
                    let ident = item.ident.to_string();
                    let (name, inner) = (format!("{name}::{ident}"), modules.join(&ident));
                    match &item.content {
                        Some((_, items)) => self.items(items, &inner, &name),
                        None => {
                            let elsewhere = item.attrs.iter().find_map(path).map(|path| modules.join(path));
                            let inner = elsewhere.as_deref().and_then(Path::parent).unwrap_or(&inner);
                            let files = [modules.join(format!("{ident}.rs")), inner.join("mod.rs")];
                            let mut files = elsewhere.iter().chain(&files);
                            if let Some(file) = files.find(|file| file.is_file()) {
                                self.file(file, inner, &name);
                            }
                        }
                    }
                }
                Item::Macro(item) if item.mac.path.is_ident("proptest") && self.runs(&item.attrs) => {
                    self.tokens(item.mac.tokens.clone(), name);
                }
                _ => {}
            }
        }
    }

    /// The functions in the body of a macro that takes functions with attributes.
    fn tokens(&mut self, tokens: TokenStream, name: &str) {
        let mut attrs: Vec<Attribute> = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(group)) = tokens.peek()
                        && group.delimiter() == Delimiter::Bracket
                    {
                        let group = tokens.next().expect("it was peeked");
                        let one: TokenStream = [TokenTree::Punct(punct), group].into_iter().collect();
                        let parsed = syn::parse::Parser::parse2(Attribute::parse_outer, one);
                        attrs.extend(parsed.expect("an attribute"));
                    }
                }
                TokenTree::Ident(ident) if ident == "fn" => {
                    if let Some(TokenTree::Ident(function)) = tokens.next()
                        && self.runs(&attrs)
                        && attrs.iter().any(is_test)
                    {
                        self.tests.push(Test { name: format!("{name}::{function}"), doc: doc(&attrs) });
                    }
                    attrs.clear();
                }
                _ => {}
            }
        }
    }

    /// Whether nothing keeps what has these attributes from running.
    fn runs(&self, attrs: &[Attribute]) -> bool {
        let is_on = |attr: &Attribute| match &attr.meta {
            Meta::List(list) => {
                let condition = list.tokens.to_string();
                condition == "test"
                    || self.features.iter().any(|feature| condition == format!("feature = {feature:?}"))
            }
            _ => false,
        };
        !attrs.iter().any(|attr| {
            attr.path().is_ident("ignore")
                || attr.path().is_ident("cfg_attr")
                || attr.path().is_ident("cfg") && !is_on(attr)
        })
    }
}

fn is_test(attr: &Attribute) -> bool {
    attr.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

/// The text of `#[path = "..."]`.
fn path(attr: &Attribute) -> Option<String> {
    text_of(attr, "path")
}

fn doc(attrs: &[Attribute]) -> String {
    attrs.iter().filter_map(|attr| text_of(attr, "doc")).collect::<Vec<_>>().join("\n")
}

/// The text of an attribute that is a name and a text.
fn text_of(attr: &Attribute, name: &str) -> Option<String> {
    let Meta::NameValue(meta) = &attr.meta else { return None };
    match &meta.value {
        Expr::Lit(lit) if meta.path.is_ident(name) => match &lit.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// A place in the sources that cites a statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Citation {
    pub(crate) id: Id,
    /// The file, from the root of the workspace.
    pub(crate) file: String,
}

/// Every citation in the sources of the machines and their adapters, and what cites nothing.
pub(crate) fn citations(statements: &Statements) -> (BTreeSet<Citation>, Vec<String>) {
    let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
    for member in members() {
        if member == "mqtt-testkit" || member == "benches" {
            continue;
        }
        let mut dirs = vec![root().join(&member).join("src")];
        while let Some(dir) = dirs.pop() {
            for path in list(&dir) {
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let text = read(&path);
                // Unit tests enforce nothing.
                let text = text.split("#[cfg(test)]").next().unwrap_or_default();
                let file =
                    path.strip_prefix(root()).expect("inside").display().to_string().replace('\\', "/");
                let text = joined(text);
                let mut ids: Vec<Id> = mentions(&text).iter().flat_map(Mention::ids).collect();
                ids.extend(rules(&text));
                for id in ids {
                    if statements.contains(&id) {
                        found.insert(Citation { id, file: file.clone() });
                    } else {
                        unknown.push(format!("{file}: {id}"));
                    }
                }
            }
        }
    }
    (found, unknown)
}

/// Comments that go over several lines, in one.
fn joined(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        let comment = ["/// ", "//! ", "// "].iter().find_map(|start| line.strip_prefix(start));
        out.push_str(if comment.is_some() { " " } else { "\n" });
        out.push_str(comment.unwrap_or(line));
    }
    out
}

/// The rows of the codec's list of rules: `Name: "number in 3.1.1", "number in 5.0", ...`.
fn rules(text: &str) -> Vec<Id> {
    let Some((_, list)) = text.split_once("\nviolations! {") else { return Vec::new() };
    let mut ids = Vec::new();
    for line in list.lines() {
        let numbers = line.split('"').skip(1).step_by(2).zip([Version::V311, Version::V5]);
        for (number, version) in numbers.filter(|(number, _)| number.starts_with("MQTT-")) {
            ids.push(Id { version, number: number.to_owned() });
        }
    }
    ids
}

#[test]
fn words_behind_a_number_say_the_version() {
    let of = |text: &str| mentions(text).into_iter().map(|m| (m.id, m.of)).collect::<Vec<_>>();
    let id = |n: &str| format!("MQTT-{n}");
    assert_eq!(of("[MQTT-1.2-3]: so"), [(id("1.2-3"), Of::V5)]);
    assert_eq!(of("[MQTT-1.2-3] of 3.1.1: so"), [(id("1.2-3"), Of::V311)]);
    assert_eq!(of("[MQTT-1.2-3] [MQTT-1.2-4]\nof both"), [(id("1.2-3"), Of::V5), (id("1.2-4"), Of::Both)]);
    assert_eq!(of("[MQTT-1.2-3] of bothers"), [(id("1.2-3"), Of::V5)]);
}

#[test]
fn only_tests_that_run_are_found() {
    let text = r#"
        /// one
        #[test] fn one() {}
        // [MQTT-0-0]
        fn helper() {}
        #[test] #[ignore] fn ignored() {}
        #[cfg(some_flag)] #[test] fn guarded() {}
        #[cfg(feature = "off")] #[test] fn without() {}
        #[cfg(feature = "on")] #[test] fn with() {}
        #[cfg(test)] mod inner { #[tokio::test] async fn two() {} }
        proptest! {
            #![proptest_config(x)]
            /// three
            #[test]
            fn three(a in 0..1) { fn no() {} }
            fn not_a_test(a in 0..1) {}
        }
    "#;
    let mut walk = Walk { features: vec!["on".to_owned()], tests: Vec::new() };
    walk.items(&syn::parse_file(text).unwrap().items, Path::new("."), "t");
    let names: Vec<_> = walk.tests.iter().map(|test| (test.name.as_str(), test.doc.trim())).collect();
    assert_eq!(names, [("t::one", "one"), ("t::with", ""), ("t::inner::two", ""), ("t::three", "three")]);
}
