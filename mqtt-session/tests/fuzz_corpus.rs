//! Replays the corpus of the machines' fuzz targets, so that what was found once stays fixed.

#[path = "../../fuzz/src/machines.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own when it is fuzzed")]
mod machines;
#[path = "../../fuzz/src/stored.rs"]
#[allow(unreachable_pub, reason = "it is a library of its own when it is fuzzed")]
mod stored;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_replays() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, body) in machines::ALL.into_iter().chain(stored::ALL) {
        let folder = corpus.join(target);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no seeds");
        for file in files {
            // Shown if the body panics.
            println!("{}", file.display());
            body(&fs::read(&file).unwrap());
        }
    }
}
