//! Users and their passwords.

mod edit;
mod hash;

pub use edit::{NameError, PasswordFileEditor};
pub use hash::{HashError, Method, PasswordHash};

use crate::file::{self, FileError, Warning};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Users and their passwords, as Mosquitto's `password_file` has them: a line `name:hash` for each,
/// `#` before comments. Reading is all or nothing.
#[derive(Clone, Debug, Default)]
pub struct PasswordFile {
    users: BTreeMap<Box<str>, PasswordHash>,
    warnings: Vec<Warning>,
    /// Known to nobody outside; the same as long as the file is. Chooses decoys.
    secret: [u8; 32],
}

impl PasswordFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, a line is broken, or a user occurs twice: with the line and the remedy.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read_text(path)?)
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// As for [`PasswordFile::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut this = Self::default();
        let mut lines: BTreeMap<&str, u32> = BTreeMap::new();
        for (number, line) in file::lines(text) {
            let (name, hash) = match split(line) {
                Line::Nothing => continue,
                Line::NoColon => {
                    // Mosquitto passes over it in silence.
                    this.warnings.push(Warning::new(path, number, "no colon, so this line is passed over"));
                    continue;
                }
                Line::User(name, hash) => (name, hash),
            };
            if let Some(first) = lines.insert(name, number) {
                let problem = format!("user {name:?} was in line {first} already");
                return Err(FileError::at(path, number, problem, "leave one of the two lines"));
            }
            let hash: PasswordHash = hash.parse().map_err(|e: HashError| {
                let remedy = match e {
                    HashError::Unknown => "turn plain passwords into hashes with: mqtt passwd -U FILE",
                    _ => "set the password anew with: mqtt passwd FILE USER",
                };
                FileError::at(path, number, format!("user {name:?}: {e}"), remedy)
            })?;
            if let Some(weakness) = hash.weakness() {
                let text = format!("user {name:?}: {weakness}; set the password anew with mqtt passwd");
                this.warnings.push(Warning::new(path, number, text));
            }
            this.users.insert(name.into(), hash);
        }
        this.secret = Sha256::digest(text.as_bytes()).into();
        Ok(this)
    }

    /// What is odd in it.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    /// Whether the user exists and this is the password. Takes its time, and the same time for a
    /// user that does not exist.
    #[must_use]
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        match self.users.get(name) {
            Some(hash) => hash.verify(password),
            None => {
                let _ = self.decoy(name).map(|decoy| decoy.verify(password));
                false
            }
        }
    }

    /// The users who are in `self` and not, or not with the same password, in `newer`.
    pub fn gone_in<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a str> {
        self.users
            .iter()
            .filter(|(name, hash)| newer.users.get(*name) != Some(*hash))
            .map(|(name, _)| &**name)
    }

    /// What SCRAM needs to know of the user, and whether the user exists. Who does not gets
    /// something of the same kind, always the same.
    pub(crate) fn scram(&self, name: &str) -> (crate::scram::Credential, bool) {
        match self.users.get(name).and_then(PasswordHash::scram) {
            Some(credential) => (credential.clone(), true),
            None => {
                let model = self.users.values().find_map(PasswordHash::scram);
                (crate::scram::Credential::invented(model, &self.number(name)), false)
            }
        }
    }

    /// Whether anybody can authenticate by SCRAM.
    pub(crate) fn has_scram(&self) -> bool {
        self.users.values().any(|hash| hash.scram().is_some())
    }

    /// One of the stored passwords, made unfit: always the same for a name, so that the time of an
    /// answer tells nothing where users have hashes of different cost.
    fn decoy(&self, name: &str) -> Option<PasswordHash> {
        let len = u64::try_from(self.users.len()).ok().filter(|&len| len > 0)?;
        let [a, b, c, d, e, f, g, h, ..] = self.number(name);
        let at = usize::try_from(u64::from_le_bytes([a, b, c, d, e, f, g, h]) % len).ok()?;
        self.users.values().nth(at).map(PasswordHash::decoy)
    }

    /// Something that belongs to the name and that nobody outside can tell.
    fn number(&self, name: &str) -> [u8; 32] {
        keyed(&self.secret, &[name.as_bytes()])
    }
}

/// HMAC-SHA-256 over `parts`, each with its length, so that they do not run into each other.
pub(crate) fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    for part in parts {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// What a line is.
enum Line<'a> {
    /// A comment, or empty.
    Nothing,
    NoColon,
    /// A name and what stands behind its colon.
    User(&'a str, &'a str),
}

fn split(line: &str) -> Line<'_> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    match line.split_once(':') {
        Some((name, hash)) => Line::User(name.trim(), hash.trim()),
        None => Line::NoColon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ann:$6$vCFTMF1RV5fOoGjY$XX58WZ75lbXRTYSuqLcqmHQ+eQNYvC2SjTsn52afJptFsGrgZWviIeIO8pjJ4156eGxyCpoCNstpEmaimqADpQ==";

    fn parse(text: &str) -> Result<PasswordFile, FileError> {
        PasswordFile::parse(Path::new("pw"), text)
    }

    #[test]
    fn a_file_with_all_that_mosquitto_allows_is_read() {
        let file = parse(&format!("# comment\r\n\r\n{ANN}\r\nno colon here\n")).unwrap();
        assert!(file.len() == 1 && file.verify("ann", b"secret"));
        assert!(!file.verify("ann", b"wrong") && !file.verify("bob", b"secret"));
        let warnings: Vec<String> = file.warnings().iter().map(ToString::to_string).collect();
        assert!(warnings.iter().any(|w| w.starts_with("pw:4: no colon")), "{warnings:?}");
        assert!(!parse("").unwrap().verify("ann", b"secret"));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_remedy() {
        let twice = parse(&format!("{ANN}\n{ANN}")).unwrap_err();
        assert_eq!(twice.to_string(), "pw:2: user \"ann\" was in line 1 already: leave one of the two lines");
        let plain = parse("#\nann:secret").unwrap_err().to_string();
        assert!(
            plain.starts_with("pw:2: user \"ann\": this is no password hash") && plain.contains("passwd -U")
        );
        assert!(!plain.contains("secret"), "a password is never repeated");
    }

    #[test]
    fn a_missing_file_is_told() {
        let error = PasswordFile::read(Path::new("/nonexistent/pw")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/pw: cannot open it"), "{error}");
    }

    #[test]
    fn whoever_is_gone_or_changed_is_known() {
        let old = parse(&format!("{ANN}\nbob{}", &ANN[3..])).unwrap();
        let new = parse(ANN).unwrap();
        assert_eq!(old.gone_in(&new).collect::<Vec<_>>(), ["bob"]);
        assert_eq!(old.gone_in(&PasswordFile::default()).count(), 2);
    }
}
