//! Changing password files.

use super::{HashError, Line, PasswordHash, split};
use crate::file::{self, FileError};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A password file that is being changed. Comments, and lines that are not changed, stay as they
/// are. Nothing is written before [`PasswordFileEditor::save`].
#[derive(Clone, Debug)]
pub struct PasswordFileEditor {
    path: PathBuf,
    lines: Vec<String>,
}

impl PasswordFileEditor {
    /// An empty file, whatever there is now.
    #[must_use]
    pub fn create(path: &Path) -> Self {
        Self { path: path.to_owned(), lines: Vec::new() }
    }

    /// The file as it is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let text = file::read_text(path)?;
        Ok(Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.lines.iter().position(|line| matches!(split(line), Line::User(user, _) if user == name))
    }

    /// Sets a user's password. True if the user is new.
    ///
    /// # Errors
    /// If the name cannot be one: empty, with a colon or a line break, or with `#` in front.
    pub fn set(&mut self, name: &str, hash: &PasswordHash) -> Result<bool, NameError> {
        check_name(name)?;
        let line = format!("{name}:{hash}");
        match self.position(name) {
            Some(at) => {
                if let Some(old) = self.lines.get_mut(at) {
                    *old = line;
                }
                Ok(false)
            }
            None => {
                self.lines.push(line);
                Ok(true)
            }
        }
    }

    /// Removes a user. False if there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let at = self.position(name);
        at.map(|at| self.lines.remove(at)).is_some()
    }

    /// Turns passwords that stand there in plain text into hashes, and leaves hashes as they are.
    /// Tells how many were turned.
    ///
    /// # Errors
    /// What `hash` says, with the line.
    pub fn upgrade(
        &mut self,
        mut hash: impl FnMut(&[u8]) -> Result<PasswordHash, HashError>,
    ) -> Result<usize, FileError> {
        let mut turned = 0;
        for (number, line) in (1u32..).zip(&mut self.lines) {
            let Line::User(name, _) = split(line) else { continue };
            // Blanks may be part of the password; the end of the line is not.
            let password = line.split_once(':').map_or("", |(_, password)| password);
            if password.trim().parse::<PasswordHash>() != Err(HashError::Unknown) {
                continue;
            }
            let hash = hash(password.as_bytes()).map_err(|e| {
                FileError::at(&self.path, number, format!("user {name:?}: {e}"), "choose another password")
            })?;
            *line = format!("{name}:{hash}");
            turned += 1;
        }
        Ok(turned)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Puts the file in place of the old one: whole or not at all. A new file can be read by its
    /// owner only; an old one keeps its mode and, where the system lets us, its owner.
    ///
    /// # Errors
    /// If it cannot be written; the old file is as it was then.
    pub fn save(&self) -> Result<(), FileError> {
        // A link stays one.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        write_whole(&path, self.text().as_bytes()).map_err(|e| FileError::io(&self.path, "write", &e))
    }
}

/// Why a name cannot be a user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user name is not empty, has no colon and no control character, begins and ends without a blank, and does not begin with #"
)]
pub struct NameError;

fn check_name(name: &str) -> Result<(), NameError> {
    let fits = !name.is_empty()
        && !name.starts_with('#')
        && name.trim() == name
        && !name.contains(|c: char| c == ':' || c.is_control());
    if fits { Ok(()) } else { Err(NameError) }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let result = (|| {
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(path) {
            keep_owner(&file, &old);
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(unix)]
fn keep_owner(file: &fs::File, old: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    // Without the right to, the file is ours.
    let _ = fchown(file, Some(old.uid()), Some(old.gid()));
}

#[cfg(not(unix))]
fn keep_owner(_: &fs::File, _: &fs::Metadata) {}

#[cfg(test)]
mod tests {
    use super::super::{Method, PasswordFile};
    use super::*;

    fn hash(password: &[u8]) -> Result<PasswordHash, HashError> {
        PasswordHash::new(Method::Sha512, None, password)
    }

    #[test]
    fn users_are_set_changed_and_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        let mut editor = PasswordFileEditor::create(&path);
        assert_eq!(editor.set("ann", &hash(b"1").unwrap()), Ok(true));
        editor.lines.push("# by hand".to_owned());
        assert_eq!(editor.set("bob", &hash(b"2").unwrap()), Ok(true));
        assert_eq!(editor.set("ann", &hash(b"3").unwrap()), Ok(false));
        editor.save().unwrap();
        let mut editor = PasswordFileEditor::open(&path).unwrap();
        assert!(editor.remove("bob") && !editor.remove("bob"));
        editor.save().unwrap();
        let file = PasswordFile::read(&path).unwrap();
        assert!(file.verify("ann", b"3") && !file.contains("bob"));
        assert!(editor.text().ends_with("\n# by hand\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_its_owners_and_an_old_one_keeps_its_mode_and_its_link() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("pw"), dir.path().join("link"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        PasswordFileEditor::create(&path).save().unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut editor = PasswordFileEditor::open(&link).unwrap();
        editor.set("ann", &hash(b"1").unwrap()).unwrap();
        editor.save().unwrap();
        assert_eq!(mode(&path), 0o640);
        assert!(link.is_symlink() && PasswordFile::read(&path).unwrap().contains("ann"));
    }

    #[test]
    fn plain_passwords_are_turned_and_hashes_left() {
        let mut editor = PasswordFileEditor::create(Path::new("pw"));
        editor.lines =
            ["ann: p:w ".to_owned(), "# c".to_owned(), format!("bob:{}", hash(b"2").unwrap())].into();
        assert_eq!(editor.upgrade(hash).unwrap(), 1);
        let file = PasswordFile::parse(Path::new("pw"), &editor.text()).unwrap();
        assert!(file.verify("ann", b" p:w ") && file.verify("bob", b"2"));
        assert_eq!(editor.upgrade(hash).unwrap(), 0);
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        let mut editor = PasswordFileEditor::create(Path::new("pw"));
        for name in ["", "a:b", "a\nb", "#a", " a", "a\r"] {
            assert_eq!(editor.set(name, &hash(b"1").unwrap()), Err(NameError), "{name:?}");
        }
        assert_eq!(editor.set("jörg #1/+", &hash(b"1").unwrap()), Ok(true));
    }
}
