//! Replays the corpus of the layers' fuzz target, so that what was found once stays fixed.
#![cfg(all(feature = "broker", feature = "websocket"))]

#[path = "../../fuzz/src/layers.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own when it is fuzzed")]
mod layers;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_replays() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, body) in layers::ALL {
        let folder = corpus.join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no seeds");
        for file in files {
            // Shown if the body panics.
            println!("{}", file.display());
            body(&fs::read(&file).unwrap());
        }
    }
}
