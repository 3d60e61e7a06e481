//! What the fuzz targets run. `cargo +nightly fuzz run <target>` looks for inputs that break it;
//! `cargo test -p mqtt-proto` replays the corpus on stable.

pub mod bodies;
pub mod layers;
pub mod machines;
pub mod stored;
