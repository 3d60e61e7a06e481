//! The hot paths, and nothing else: `hot SCENARIO MESSAGES` has so many messages published through the broker's
//! machine, or through a client from its socket to its stream or the other way round. Counted twice with different
//! numbers, the difference is what a message costs in instructions (`scripts/instructions`), and a profiler sees no
//! socket.

mod broker;
mod client;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let names: Vec<_> =
        broker::SCENARIOS.iter().map(|s| s.name).chain(client::SCENARIOS.map(|s| s.0)).collect();
    let usage = || format!("usage: hot SCENARIO MESSAGES, with one of {}", names.join(", "));
    let name = args.next().ok_or_else(usage)?;
    let messages: usize = args.next().ok_or_else(usage)?.parse()?;
    let done = if let Some(scenario) = broker::SCENARIOS.iter().find(|s| s.name == name) {
        broker::run(scenario, messages)?
    } else {
        let scenario = client::SCENARIOS.iter().find(|s| s.0 == name).ok_or_else(usage)?;
        client::run(scenario, messages)?
    };
    println!("{done}");
    Ok(())
}
