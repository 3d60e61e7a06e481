//! Who may connect to an MQTT broker, and what they may do there.
//!
//! The broker machine asks ([`Ask`](mqtt_session::broker::Ask)); [`Access`] answers, at once or by a
//! [`Job`] for a thread that may block. There is no runtime and no socket in here: the adapter runs
//! the jobs, a few at a time, and waits where it is told to wait.
//!
//! * [`PasswordFile`]: users and their passwords, in all of Mosquitto's formats and for SCRAM.
//! * [`acl_file`]: Mosquitto's ACL files, and the stricter ones of ours.
//! * [`scram`]: SCRAM-SHA-256 as enhanced authentication of MQTT 5.0.
//! * [`certificate`]: user names from TLS certificates.
#![cfg_attr(feature = "jwt", doc = "* [`jwt`]: JSON Web Tokens as passwords.")]
#![cfg_attr(feature = "http", doc = "* [`webhook`]: asking a web service.")]
//!
//! Files are read whole into new values and put in place of the old ones only if all is well: an
//! error names file, line and remedy, and changes nothing.
#![forbid(unsafe_code)]

mod access;
pub mod acl_file;
pub mod certificate;
mod exchanges;
mod file;
#[cfg(feature = "jwt")]
pub mod jwt;
mod password;
pub mod scram;
mod throttle;
#[cfg(feature = "http")]
pub mod webhook;

pub use access::{Access, CertificateName, Decision, Job, JobKind, Policy, Work};
pub use file::{FileError, Warning, read_text};
pub use password::{HashError, Method, NameError, PasswordFile, PasswordFileEditor, PasswordHash};
pub use throttle::ThrottleConfig;
