//! Reading files that decide about rights.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Larger files are refused: nobody writes them by hand, and a device has no end.
const MAX_FILE: u64 = 256 << 20;

/// A file that cannot be used: which, where, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}: {remedy}", Place(path, *line))]
pub struct FileError {
    path: PathBuf,
    line: Option<u32>,
    problem: String,
    remedy: String,
}

/// Something odd in a file that can be used all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    path: PathBuf,
    line: u32,
    text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Place(&self.path, Some(self.line)), self.text)
    }
}

impl Warning {
    /// Something odd.
    #[must_use]
    pub fn new(path: &Path, line: u32, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

struct Place<'a>(&'a Path, Option<u32>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(line) => write!(f, "{}:{line}", self.0.display()),
            None => write!(f, "{}", self.0.display()),
        }
    }
}

impl FileError {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from 1, if it is about one.
    #[must_use]
    pub const fn line(&self) -> Option<u32> {
        self.line
    }

    /// Something is wrong in a file, or with it.
    #[must_use]
    pub fn new(
        path: &Path,
        line: Option<u32>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { path: path.to_owned(), line, problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn at(path: &Path, line: u32, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(path, Some(line), problem, remedy)
    }

    pub(crate) fn whole(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(path, None, problem, remedy)
    }

    pub(crate) fn io(path: &Path, doing: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "let the user that the broker runs as have it",
            io::ErrorKind::IsADirectory => "name a file, not a directory",
            _ => "see to the file system",
        };
        Self::whole(path, format!("cannot {doing} it: {error}"), remedy)
    }
}

/// The bytes of a file, up to 256 MiB.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| FileError::io(path, "open", &e))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| FileError::io(path, "read", &e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::whole(path, "it is larger than 256 MiB", "name the right file"));
    }
    Ok(bytes)
}

/// The text of a file, up to 256 MiB.
///
/// # Errors
/// If it cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    String::from_utf8(read(path)?).map_err(|e| {
        let before = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        FileError::at(path, lines_in(before), "this is not UTF-8", "save the file as UTF-8")
    })
}

/// The number of the line that begins or goes on behind `before`.
fn lines_in(before: &[u8]) -> u32 {
    u32::try_from(before.iter().filter(|&&b| b == b'\n').count()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The lines with their numbers from 1, without their ends, `\r\n` included.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1u32..).zip(text.lines())
}
