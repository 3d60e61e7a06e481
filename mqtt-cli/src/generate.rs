//! `mqtt man` and `mqtt completions`: what packages install beside the program, made from its options.

use crate::stop::Stop;
use clap::{Args, Command};
use clap_complete::{Shell, generate};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `mqtt man`.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Where to write a page for the program and one for each of its commands
    directory: PathBuf,
}

/// Options of `mqtt completions`.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

/// Writes the pages.
pub(crate) fn man(options: &Man, program: Command) -> ExitCode {
    let directory = &options.directory;
    let written =
        std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(program, directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => Stop::new(format!("{}: {e}", directory.display())).exit(false),
    }
}

/// Prints the completions.
pub(crate) fn completions(options: &Completions, program: Command) -> ExitCode {
    let mut program = program;
    let (name, mut script) = (program.get_name().to_owned(), Vec::new());
    generate(options.shell, &mut program, name, &mut script);
    match io::stdout().lock().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => Stop::new(format!("standard output: {e}")).exit(false),
    }
}
