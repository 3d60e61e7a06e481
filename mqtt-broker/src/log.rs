//! Where the log goes: standard streams, files, and topics below `$SYS/broker/log`.

use mqtt_proto::QoS;
use mqtt_session::Message;
use mqtt_tokio::broker::BrokerHandle;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Lines that wait to be published; more are dropped, since whoever logs does not wait.
const WAITING: usize = 1000;

/// A place to which lines go.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file.
    File(LogFile),
    /// Topics of the broker's own.
    Topics(LogTopics),
}

impl LogTarget {
    /// Writes a whole line about something of this kind (`E`, `W`, `N`, `I`, `D`, `M/subscribe`,
    /// `M/unsubscribe`).
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, kind: &str, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => io::stdout().lock().write_all(line),
            Self::File(file) => file.write(line),
            Self::Topics(topics) => {
                topics.send(kind, line);
                Ok(())
            }
        }
    }
}

/// A file to which lines are appended. Clones are the same.
#[derive(Clone, Debug)]
pub struct LogFile(Arc<(PathBuf, Mutex<File>)>);

impl LogFile {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new((path.to_owned(), Mutex::new(append(path)?)))))
    }

    /// Opens the file again: what it was may have been moved away.
    ///
    /// # Errors
    /// If it cannot be opened; then it goes on as it was.
    pub fn reopen(&self) -> io::Result<()> {
        let (path, file) = &*self.0;
        let new = append(path)?;
        *file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Lines on their way to topics.
#[derive(Clone, Debug)]
pub struct LogTopics {
    lines: mpsc::Sender<Message>,
    waiting: Arc<Mutex<Option<mpsc::Receiver<Message>>>>,
}

impl Default for LogTopics {
    fn default() -> Self {
        let (lines, waiting) = mpsc::channel(WAITING);
        Self { lines, waiting: Arc::new(Mutex::new(Some(waiting))) }
    }
}

impl LogTopics {
    fn send(&self, kind: &str, line: &[u8]) {
        let message = Message::new(format!("$SYS/broker/log/{kind}"), line.trim_ascii_end().to_vec());
        // Too many are dropped.
        let _ = self.lines.try_send(message.with_qos(QoS::AtMostOnce));
    }

    /// Publishes what comes, for as long as the broker works.
    pub(crate) async fn publish(self, broker: BrokerHandle) -> Infallible {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut waiting) = waiting {
            while let Some(message) = waiting.recv().await {
                if broker.publish(message).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let file = LogFile::open(&path).unwrap();
        let target = LogTarget::File(file.clone());
        target.write("N", b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        target.write("N", b"two\n").unwrap();
        file.reopen().unwrap();
        target.write("N", b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }
}
