//! The bundled broker with settings of the program's own, until a signal ends it:
//!
//!     cargo run -p mqtt-broker --example settings [FILE]
//!
//! FILE is a configuration file, as `mqtt broker --print-config` writes it.

use mqtt_broker::{Source, SourceFile, run};
use std::env::args_os;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut source = Source::default();
    source.file = args_os().nth(1).map(|path| SourceFile::Config(path.into()));
    source.overrides.set("limits.max_connections=1000")?;
    // Reads every file that is named, and opens no socket.
    let settings = source.read()?;
    for line in settings.summary() {
        println!("{line}");
    }
    Ok(run(&source, settings).await?.exit_code().into())
}
