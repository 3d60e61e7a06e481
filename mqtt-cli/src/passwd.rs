//! `mqtt passwd`: makes and edits password files, with the options of mosquitto_passwd.

use crate::stop::Stop;
use clap::{Args, ValueEnum};
use mqtt_access::{Method, PasswordFileEditor, PasswordHash};
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `mqtt passwd`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Make a new file; an old one is overwritten
    #[arg(short, long, conflicts_with_all = ["delete", "upgrade"])]
    create: bool,
    /// Take the password from the command line, where others on this machine may see it
    #[arg(short, long, conflicts_with_all = ["delete", "upgrade"])]
    batch: bool,
    /// Remove the user
    #[arg(short = 'D', long, conflicts_with = "upgrade")]
    delete: bool,
    /// Turn passwords that stand in the file in plain text into hashes; hashes stay as they are
    #[arg(short = 'U', long)]
    upgrade: bool,
    /// How to store it
    #[arg(short = 'H', long, value_enum, default_value_t = Hash::Argon2id, value_name = "METHOD")]
    hash: Hash,
    /// Rounds, for sha512-pbkdf2 and scram-sha-256
    #[arg(short = 'I', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// The password file; with --create, - writes it to the standard output
    file: PathBuf,
    /// The user
    #[arg(required_unless_present = "upgrade", conflicts_with = "upgrade")]
    user: Option<String>,
    /// The password, with --batch
    #[arg(requires = "batch", required_if_eq("batch", "true"), allow_hyphen_values = true)]
    password: Option<String>,
}

/// How to store a password.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hash {
    /// Slow and hungry for memory; Mosquitto reads it since 2.1
    Argon2id,
    /// Mosquitto reads it since 2.0
    Sha512Pbkdf2,
    /// Every Mosquitto reads it, and a thief guesses it quickly
    Sha512,
    /// For clients that prove that they know it (MQTT 5.0); Mosquitto does not read it
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

impl From<Hash> for Method {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Argon2id => Self::Argon2id,
            Hash::Sha512Pbkdf2 => Self::Sha512Pbkdf2,
            Hash::Sha512 => Self::Sha512,
            Hash::ScramSha256 => Self::ScramSha256,
        }
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match edit(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.exit(false),
    }
}

fn edit(options: &Options) -> Result<(), Stop> {
    let stop = |e: &dyn std::error::Error| Stop::new(e.to_string());
    let method = options.hash.into();
    if options.iterations.is_some() && Method::default_iterations(method).is_none() {
        return Err(Stop::new("--iterations is for sha512-pbkdf2 and scram-sha-256 only"));
    }
    let hash = |password: &[u8]| PasswordHash::new(method, options.iterations, password);
    let to_stdout = options.file == Path::new("-");
    if to_stdout && !options.create {
        return Err(Stop::new("- can only be written to: use it with --create"));
    }
    let mut editor = if options.create {
        PasswordFileEditor::create(&options.file)
    } else {
        PasswordFileEditor::open(&options.file).map_err(|e| match fs::exists(&options.file) {
            Ok(false) => {
                Stop::new(format!("{}: there is no such file: make it with --create", options.file.display()))
            }
            _ => stop(&e),
        })?
    };
    let user = options.user.as_deref().unwrap_or_default();
    if options.upgrade {
        let turned = editor.upgrade(hash).map_err(|e| stop(&e))?;
        eprintln!("{turned} plain passwords turned into hashes.");
    } else if options.delete {
        if !editor.remove(user) {
            return Err(Stop::new(format!("{}: there is no user {user:?}", options.file.display())));
        }
    } else {
        let password = match &options.password {
            Some(password) => password.clone(),
            None => ask().map_err(|e| stop(&e))?,
        };
        if password.is_empty() {
            return Err(Stop::new("an empty password protects nothing: choose another"));
        }
        editor.set(user, &hash(password.as_bytes()).map_err(|e| stop(&e))?).map_err(|e| stop(&e))?;
    }
    if to_stdout {
        return io::stdout().write_all(editor.text().as_bytes()).map_err(|e| stop(&e));
    }
    editor.save().map_err(|e| stop(&e))
}

/// Asks for a password, twice at a terminal and without showing it; else takes a line of the input.
fn ask() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    let password = rpassword::prompt_password("Password: ")?;
    if rpassword::prompt_password("Reenter password: ")? != password {
        return Err(io::Error::other("the two passwords differ: nothing was changed"));
    }
    Ok(password)
}
