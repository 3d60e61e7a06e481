//! Reading the file, and what overrides it.

use super::FileConfig;
use mqtt_access::FileError;
use serde_json::Value;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Settings from elsewhere that count more than the file: from flags and from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(Vec<Override>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Override {
    /// As people know it: `--set limits.max_connections` or `MQTT_LIMITS__MAX_CONNECTIONS`.
    name: String,
    path: Vec<String>,
    value: String,
}

impl Overrides {
    /// Adds what `--set SECTION.KEY=VALUE` says.
    ///
    /// # Errors
    /// If it is not written so.
    pub fn set(&mut self, text: &str) -> Result<(), FileError> {
        let name = format!("--set {text}");
        let fail =
            || FileError::new(Path::new(&name), None, "this sets nothing", "write --set SECTION.KEY=VALUE");
        let (path, value) = text.split_once('=').ok_or_else(fail)?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(fail());
        }
        self.0.push(Override {
            name: format!("--set {}", path.join(".")),
            path,
            value: value.trim().to_owned(),
        });
        Ok(())
    }

    /// Adds the variables `MQTT_SECTION__KEY`, in upper case and with two underscores for each dot.
    /// Two, because container systems make variables like `MQTT_PORT` of their own accord.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut found: Vec<Override> = variables
            .filter_map(|(name, value)| {
                let rest = name.strip_prefix("MQTT_").filter(|rest| rest.contains("__"))?;
                let path = rest.split("__").map(str::to_ascii_lowercase).collect();
                Some(Override { name, path, value })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        // Flags come later and win.
        self.0.splice(0..0, found);
    }
}

/// What a value is, given as text: as in TOML if it can be read so, else the text itself.
fn value_of(text: &str) -> toml::Value {
    let line = format!("value = {text}");
    let table: Option<toml::Table> = toml::from_str(&line).ok();
    // A line break could smuggle in other keys.
    match table.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => toml::Value::String(text.to_owned()),
    }
}

fn put(table: &mut toml::Table, path: &[String], value: toml::Value) -> bool {
    match path {
        [] => false,
        [last] => {
            table.insert(last.clone(), value);
            true
        }
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            inner.as_table_mut().is_some_and(|inner| put(inner, rest, value))
        }
    }
}

impl FileConfig {
    /// Reads the text of a file (`path` is for messages), and puts `overrides` above it.
    ///
    /// # Errors
    /// Names line and remedy if a key is unknown or a value is none.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, FileError> {
        let remedy = "see mqtt broker --print-config";
        let mut config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| line_at(text, span.start));
            FileError::new(path, line, problem_of(&e), remedy)
        })?;
        let mut table: toml::Table = toml::from_str(text).unwrap_or_default();
        for Override { name, path, value } in &overrides.0 {
            let name = Path::new(name);
            // A string that looks like a number is a string where one is wanted.
            let as_it_looks = value_of(value);
            let attempts = [as_it_looks.clone(), toml::Value::String(value.clone())];
            let mut first_error = None;
            let applied = attempts.into_iter().find_map(|value| {
                let mut changed = table.clone();
                if !put(&mut changed, path, value) {
                    return None;
                }
                match toml::Value::Table(changed.clone()).try_into::<Self>() {
                    Ok(config) => Some((config, changed)),
                    Err(e) => {
                        first_error.get_or_insert(problem_of(&e));
                        None
                    }
                }
            });
            match applied {
                Some((changed_config, changed)) => (config, table) = (changed_config, changed),
                None => {
                    let problem = first_error.unwrap_or_else(|| "this is no section".to_owned());
                    return Err(FileError::new(name, None, problem, remedy));
                }
            }
        }
        Ok(config)
    }
}

/// What is wrong. Of many names that would have been right, only the one that was probably meant.
fn problem_of(error: &toml::de::Error) -> String {
    let problem = error.message().trim().replace('\n', ", ");
    let Some((head, names)) = problem.split_once(", expected one of ") else { return problem };
    let quoted = |text| str::split(text, '`').skip(1).step_by(2);
    let Some(wrong) = quoted(head).next() else { return problem };
    let alike = |name: &&str| strsim::normalized_damerau_levenshtein(wrong, name);
    let nearest = quoted(names).max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|name| alike(name) > 0.7) {
        Some(name) => format!("{head}, but there is `{name}`"),
        None => problem,
    }
}

/// The line of a byte, from 1.
fn line_at(text: &str, byte: usize) -> u32 {
    let before = text.bytes().take(byte).filter(|&b| b == b'\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// The line in which a setting stands, given as `security.jwt.key_file` or `listener.0.address`; if it
/// is not there, that of what it belongs to.
pub(crate) fn line_of(text: &str, path: &str) -> Option<u32> {
    let root = DeTable::parse(text).ok()?;
    let mut steps = path.split('.');
    let first = steps.next()?;
    let (key, mut at) = root.get_ref().iter().find(|(key, _)| key.get_ref() == first)?;
    let mut span = key.span();
    for step in steps {
        let next = match at.get_ref() {
            DeValue::Table(table) => {
                table.iter().find(|(key, _)| key.get_ref() == step).map(|(key, value)| (key.span(), value))
            }
            DeValue::Array(array) => {
                step.parse().ok().and_then(|index: usize| array.get(index)).map(|value| (value.span(), value))
            }
            _ => None,
        };
        let Some((found, value)) = next else { break };
        (span, at) = (found, value);
    }
    Some(line_at(text, span.start))
}

/// The paths of settings that differ.
pub(crate) fn changes(old: &FileConfig, new: &FileConfig) -> Vec<String> {
    let mut paths = Vec::new();
    let values = [old, new].map(|config| serde_json::to_value(config).unwrap_or_default());
    let [old, new] = &values;
    let mut open = vec![(String::new(), old, new)];
    while let Some((path, old, new)) = open.pop() {
        match (old, new) {
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in a {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    open.push((path, value, b.get(key).unwrap_or(&Value::Null)));
                }
            }
            (a, b) if a == b => {}
            _ => paths.push(path),
        }
    }
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, Listener, Span};

    fn parse(text: &str) -> Result<FileConfig, FileError> {
        FileConfig::parse(Path::new("c.toml"), text, &Overrides::default())
    }

    /// The example with every setting switched on: `#key = ` and `#[section]` without their `#`.
    fn example() -> String {
        let is_setting = |line: &str| {
            line.strip_prefix('#')
                .is_some_and(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
        };
        let line = |line: &'static str| if is_setting(line) { &line[1..] } else { line };
        EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_sets_nothing_as_it_is() {
        assert_eq!(parse(EXAMPLE).unwrap(), FileConfig::default());
    }

    /// Every setting stands in the example, with its default if it has one, and nothing else does.
    #[test]
    fn the_example_is_complete() {
        let text = example();
        let written: Value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
        let all = FileConfig {
            security: super::super::Security {
                jwt: Some(Default::default()),
                webhook: Some(Default::default()),
                ..Default::default()
            },
            listeners: vec![Listener {
                tls: Some(Default::default()),
                websocket: Some(Default::default()),
                ..Listener::default()
            }],
            ..FileConfig::default()
        };
        let mut known = serde_json::to_value(&all).unwrap();
        // The same table again, in the place of [security].
        known["listener"][0].as_object_mut().unwrap().remove("security");
        for again in ["security", "tls"] {
            known["http"].as_object_mut().unwrap().remove(again);
        }
        let mut open = vec![("".to_owned(), &known, &written)];
        while let Some((path, known, written)) = open.pop() {
            match (known, written) {
                (Value::Object(a), Value::Object(b)) => {
                    let keys = |map: &serde_json::Map<String, Value>| {
                        map.keys().cloned().collect::<std::collections::BTreeSet<_>>()
                    };
                    assert_eq!(keys(a), keys(b), "settings of [{path}]");
                    open.extend(a.iter().map(|(key, value)| (format!("{path}.{key}"), value, &b[key])));
                }
                (Value::Array(a), Value::Array(b)) if path == ".listener" => {
                    open.push((path, &a[0], &b[0]));
                }
                // No default: anything may stand there.
                (Value::Null, _) => {}
                (a, b) => assert_eq!(a, b, "the default of {path}"),
            }
        }
        parse(&text).unwrap();
    }

    #[test]
    fn mistakes_are_told_with_line_and_remedy() {
        for (text, expected) in [
            (
                "[limits]\nmax_conections = 1",
                "c.toml:2: unknown field `max_conections`, but there is `max_connections`: see",
            ),
            ("\n[limit]", "c.toml:2: unknown field `limit`"),
            ("[limits]\nmax_connections = \"many\"", "c.toml:2: invalid type"),
            (
                "[timeouts]\n\nconnect = 10",
                "c.toml:3: invalid type: integer `10`, expected a time like \"10s\"",
            ),
            (
                "[timeouts]\nconnect = \"10 parsecs\"",
                "c.toml:2: invalid value: string \"10 parsecs\", expected a time",
            ),
            ("[limits]\nmax_packet_size = -1", "c.toml:2: invalid value"),
            ("[log]\nlevel = \"loud\"", "c.toml:2: unknown variant `loud`, expected one of"),
            ("[log]\nlevel = \"wran\"", "c.toml:2: unknown variant `wran`, but there is `warn`: see"),
            ("[limits\n", "c.toml:1: "),
            ("[log]\nlevel = \"info\"\nlevel = \"warn\"", "c.toml:3: "),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(error.ends_with("see mqtt broker --print-config"), "{error}");
        }
    }

    #[test]
    fn flags_and_environment_count_more_than_the_file() {
        let mut overrides = Overrides::default();
        overrides.set("limits.max_sessions=7").unwrap();
        overrides.set("timeouts.connect = 3s").unwrap();
        overrides.set("security.client_id_prefixes=[\"a\", \"b\"]").unwrap();
        overrides.set("security.jwt.issuer=5").unwrap();
        let variables = [
            ("MQTT_LIMITS__MAX_SESSIONS", "8"),
            ("MQTT_LIMITS__MAX_CONNECTIONS", "9"),
            ("MQTT_SECURITY__JWT__AUDIENCE", "mqtt"),
            ("MQTT_PORT", "tcp://10.0.0.1:1883"),
            ("PATH", "/bin"),
        ];
        overrides.environment(variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())));
        let config = FileConfig::parse(Path::new("c"), "[limits]\nmax_sessions = 6\n", &overrides).unwrap();
        assert_eq!((config.limits.max_sessions, config.limits.max_connections), (7, 9));
        assert_eq!(config.timeouts.connect, Span::secs(3));
        assert_eq!(config.security.client_id_prefixes, ["a", "b"]);
        let jwt = config.security.jwt.unwrap();
        assert_eq!((jwt.audience.as_deref(), jwt.issuer.as_deref()), (Some("mqtt"), Some("5")));
    }

    #[test]
    fn an_override_that_sets_nothing_is_told_by_its_name() {
        let overridden = |text: &str| {
            let mut overrides = Overrides::default();
            overrides
                .set(text)
                .and_then(|()| FileConfig::parse(Path::new("c"), "", &overrides))
                .unwrap_err()
                .to_string()
        };
        assert!(overridden("limits.max_cats=7").starts_with("--set limits.max_cats: unknown field"));
        let meant = "--set limits.max_inflght: unknown field `max_inflght`, but there is `max_inflight`: see";
        assert!(overridden("limits.max_inflght=7").starts_with(meant));
        assert!(overridden("limits.max_sessions=x").starts_with("--set limits.max_sessions: invalid type"));
        assert!(overridden("log.level.x=1").starts_with("--set log.level.x: "));
        for text in ["x", "x=1", "a.=1", ""] {
            assert!(overridden(text).contains("--set SECTION.KEY=VALUE"), "{text}");
        }
        let mut overrides = Overrides::default();
        overrides.environment([("MQTT_LOG__LEVL".to_owned(), "info".to_owned())].into_iter());
        let error = FileConfig::parse(Path::new("c"), "", &overrides).unwrap_err().to_string();
        assert!(error.starts_with("MQTT_LOG__LEVL: unknown field `levl`"), "{error}");
    }

    #[test]
    fn settings_are_found_in_the_text_and_compared() {
        let text = "[security]\nanonymous = true\n[security.jwt]\n\nkey_file = \"k\"\n[[listener]]\n[[listener]]\naddress = \"a\"\n";
        for (path, line) in [
            ("security.anonymous", 2),
            ("security.jwt.key_file", 5),
            ("security.jwt.none", 3),
            ("listener.1.address", 8),
        ] {
            assert_eq!(line_of(text, path), Some(line), "{path}");
        }
        assert_eq!(line_of(text, "limits.max_qos"), None);
        let new = parse("[limits]\nmax_sessions = 1\n[security]\nanonymous = true").unwrap();
        assert_eq!(changes(&FileConfig::default(), &new), ["limits.max_sessions", "security.anonymous"]);
    }
}
