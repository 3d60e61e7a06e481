//! Our codec and the published ones in one run: nanoseconds per packet, decoding and encoding.
//!
//! Each codec reads a buffer that holds many copies of one packet and writes the decoded packet
//! again and again. Rounds are interleaved, and the best of them counts: on a machine that does
//! other things too, that is the figure that can be compared. `cargo run --release -- [CASE]`.

mod cases;
mod codecs;

use cases::Case;
use std::time::Duration;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(8);
/// Bytes in the buffer that is decoded from: what fits beside the code in a second-level cache.
const STREAM: usize = 64 << 10;

struct Measured {
    codec: &'static str,
    decode: f64,
    encode: f64,
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let cases: Vec<Case> = cases::all().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    let results: Vec<(&Case, Vec<Measured>)> = cases.iter().map(|case| (case, measure(case))).collect();
    print("Decode", &results, |m| m.decode);
    print("Encode", &results, |m| m.encode);
}

fn measure(case: &Case) -> Vec<Measured> {
    let n = STREAM.div_ceil(case.wire.len());
    let stream = case.wire.repeat(n);
    let mut contenders = codecs::all(case);
    let mut best: Vec<Measured> = contenders
        .iter()
        .map(|c| Measured { codec: c.codec, decode: f64::INFINITY, encode: f64::INFINITY })
        .collect();
    for _ in 0..ROUNDS {
        for (contender, best) in contenders.iter_mut().zip(&mut best) {
            best.decode = best.decode.min(round(n, || (contender.decode)(&stream, n)));
            best.encode = best.encode.min(round(n, || (contender.encode)(n)));
        }
    }
    best
}

/// Nanoseconds per packet of the best of the passes that fit into one round.
fn round(n: usize, mut pass: impl FnMut() -> Duration) -> f64 {
    let (mut spent, mut best) = (Duration::ZERO, Duration::MAX);
    while spent < ROUND {
        let one = pass();
        spent += one;
        best = best.min(one);
    }
    best.as_secs_f64() * 1e9 / n as f64
}

fn print(what: &str, results: &[(&Case, Vec<Measured>)], figure: impl Fn(&Measured) -> f64) {
    let mut codecs: Vec<&str> = Vec::new();
    for measured in results.iter().flat_map(|(_, all)| all) {
        if !codecs.contains(&measured.codec) {
            codecs.push(measured.codec);
        }
    }
    println!("\n{what}, ns per packet\n\n| packet | {} |", codecs.join(" | "));
    println!("|---|{}", "---:|".repeat(codecs.len()));
    for (case, all) in results {
        print!("| {} |", case.name);
        for codec in &codecs {
            match all.iter().find(|m| m.codec == *codec) {
                Some(measured) => print!(" {:.1} |", figure(measured)),
                None => print!(" |"),
            }
        }
        println!();
    }
}
