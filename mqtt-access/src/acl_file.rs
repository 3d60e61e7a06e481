//! ACL files.
//!
//! ```text
//! line    := "user" SP name                   the lines below are about this user
//!          | "topic" [SP access] SP filter    above the first "user" line: clients without a name
//!          | "pattern" [SP access] SP filter  all clients; %u and %c stand for their names
//! access  := "read" | "write" | "readwrite" | "deny" | "subscribe"
//! ```
//!
//! Without an access it is `readwrite`; the filter runs to the end of the line and may hold blanks.
//! A `#` in the first column begins a comment. `subscribe` is ours, for [`Mode::Strict`]. What the
//! modes mean is told at [`Mode`].

use crate::file::{self, FileError, Warning};
use mqtt_session::acl::{Access, Acl, Mode, Who};
use std::path::Path;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct AclFile {
    /// The table.
    pub acl: Acl,
    /// What is odd in the file.
    pub warnings: Vec<Warning>,
    /// The first user whom rules are about, and the line.
    pub first_user: Option<(String, u32)>,
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read or a line is none: with the line and the remedy.
pub fn read(path: &Path, mode: Mode) -> Result<AclFile, FileError> {
    parse(path, &file::read_text(path)?, mode)
}

/// Reads the text of a file; `path` is for messages.
///
/// # Errors
/// As for [`read`].
pub fn parse(path: &Path, text: &str, mode: Mode) -> Result<AclFile, FileError> {
    let mut result = AclFile { acl: Acl::new(mode), ..AclFile::default() };
    let mut user: Option<&str> = None;
    for (number, line) in file::lines(text) {
        let line = line.trim_end();
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim_start_matches(' ');
        if line.is_empty() {
            continue;
        }
        let (word, rest) = line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
        let fail = |problem: String, remedy: &str| Err(FileError::at(path, number, problem, remedy));
        match word {
            "user" if rest.is_empty() => return fail("\"user\" without a name".into(), "write: user NAME"),
            "user" => user = Some(rest),
            "topic" | "pattern" => {
                let (access, filter) = match access_of(rest, mode) {
                    Ok(found) => found,
                    Err((problem, remedy)) => return fail(problem, remedy),
                };
                let who = match (word, user) {
                    ("pattern", _) => Who::Pattern,
                    (_, Some(name)) => {
                        result.first_user.get_or_insert_with(|| (name.to_owned(), number));
                        Who::User(name)
                    }
                    (_, None) => Who::Anonymous,
                };
                if let Some(odd) = odd(who, filter) {
                    if mode == Mode::Strict {
                        return fail(
                            format!("{filter:?}: {odd}"),
                            "make %u or %c a whole level, as in a/%u/b",
                        );
                    }
                    result.warnings.push(Warning::new(path, number, format!("{filter:?}: {odd}")));
                }
                if let Err(e) = result.acl.add(who, access, filter, number) {
                    return fail(format!("{filter:?} is no topic filter: {e}"), "correct the filter");
                }
            }
            other => {
                return fail(
                    format!("{other:?} begins no line"),
                    "begin it with user, topic or pattern, or with # in the first column for a comment",
                );
            }
        }
    }
    Ok(result)
}

type Problem = (String, &'static str);

/// Access and filter of what stands behind `topic` or `pattern`.
fn access_of(rest: &str, mode: Mode) -> Result<(Access, &str), Problem> {
    if rest.is_empty() {
        return Err(("there is no topic filter".into(), "write: topic [read|write|readwrite|deny] FILTER"));
    }
    // A single word is the filter, whatever it is.
    let Some((word, filter)) = rest.split_once(' ') else { return Ok((Access::ReadWrite, rest)) };
    let access = match word {
        "read" => Access::Read,
        "write" => Access::Write,
        "readwrite" => Access::ReadWrite,
        "deny" => Access::Deny,
        "subscribe" if mode == Mode::Strict => Access::Subscribe,
        "subscribe" => {
            let problem = "\"subscribe\" means nothing in Mosquitto's way of reading".into();
            return Err((problem, "leave the line out (every SUBSCRIBE is granted), or use the strict mode"));
        }
        other => {
            return Err((
                format!("{other:?} is no access"),
                "write read, write, readwrite, subscribe or deny before a filter that has blanks",
            ));
        }
    };
    Ok((access, filter.trim_start()))
}

/// What is odd about `%u` and `%c` in a filter.
fn odd(who: Who<'_>, filter: &str) -> Option<&'static str> {
    let inside = |level: &str| (level.contains("%u") || level.contains("%c")) && level.len() != 2;
    (who == Who::Pattern && filter.split('/').any(inside))
        .then_some("%u and %c stand for names only where they are a whole level")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_session::acl::{Action, Identity, Reason};

    fn parse(text: &str, mode: Mode) -> Result<AclFile, FileError> {
        super::parse(Path::new("acl"), text, mode)
    }

    #[test]
    fn mosquittos_grammar_is_read() {
        let text = "# comment\r\n\r\ntopic read open/#\r\nuser jörg hansen\r\ntopic a\r\ntopic  write  b c \r\n   topic read\r\n\
                    topic deny a/secret\r\npattern read dev/%c/#\r\n";
        for mode in [Mode::Strict, Mode::Mosquitto] {
            let file = parse(text, mode).unwrap();
            let who = Identity { user_name: Some("jörg hansen"), client_id: "d" };
            let line = |action| match file.acl.decide(&who, action) {
                verdict if !verdict.allowed => 0,
                verdict => match verdict.reason {
                    Reason::Rule(rule) => rule.line(),
                    _ => 0,
                },
            };
            assert_eq!(line(Action::Read("a")), 5);
            assert_eq!((line(Action::Write("b c")), line(Action::Read("b c"))), (6, 0));
            assert_eq!(line(Action::Read("read")), 7, "a single word is the filter");
            assert_eq!((line(Action::Read("dev/d/x")), line(Action::Read("open/x"))), (9, 0));
            let nobody = Identity { user_name: None, client_id: "d" };
            assert!(file.acl.allows(&nobody, Action::Read("open/x")));
            assert_eq!(file.first_user, Some(("jörg hansen".to_owned(), 5)));
            assert!(file.warnings.is_empty());
        }
    }

    #[test]
    fn an_empty_file_denies_everything() {
        let file = parse("# nothing\n", Mode::Mosquitto).unwrap();
        assert!(!file.acl.allows(&Identity { user_name: None, client_id: "" }, Action::Read("a")));
    }

    #[test]
    fn mistakes_are_told_with_line_and_remedy() {
        for (text, problem) in [
            ("\ntopic", "acl:2: there is no topic filter"),
            ("user", "acl:1: \"user\" without a name"),
            ("user  ", "acl:1: \"user\" without a name"),
            ("topic raed a", "acl:1: \"raed\" is no access"),
            ("topic read a#", "acl:1: \"a#\" is no topic filter"),
            ("topics read a", "acl:1: \"topics\" begins no line"),
            (" # comment", "acl:1: \"#\" begins no line"),
        ] {
            for mode in [Mode::Strict, Mode::Mosquitto] {
                let error = parse(text, mode).unwrap_err().to_string();
                assert!(error.starts_with(problem), "{error}");
            }
        }
        assert!(parse("topic subscribe a", Mode::Strict).is_ok());
        assert!(parse("topic subscribe a", Mode::Mosquitto).is_err());
        assert!(parse("pattern read a%u/b", Mode::Strict).is_err());
        assert_eq!(parse("pattern read a%u/b", Mode::Mosquitto).unwrap().warnings.len(), 1);
    }
}
