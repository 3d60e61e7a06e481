//! Proves the files of a store sound, or damaged, before fjall opens them.
//!
//! fjall deletes files that its manifest does not name, and cuts journals off where they stop making
//! sense. A flipped bit in the wrong place would so destroy what could be salvaged. Every byte that
//! matters has a checksum: the manifest in the file that names it, tables in the manifest, batches in
//! journals. Nothing here writes.

use super::journal;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// The keyspace of all records: the first that is made.
pub(super) const RECORDS: u64 = 1;

/// Where the files of keyspace `id` are.
pub(super) fn keyspace(store: &Path, id: u64) -> PathBuf {
    store.join("keyspaces").join(id.to_string())
}

/// What a look at the files found.
#[derive(Debug)]
pub(super) enum Finding {
    /// All is as it was written, but for what these were not written to their ends.
    Sound(Vec<Tail>),
    /// The checksum of something is wrong. This is what.
    Damaged(String),
    /// Something is missing that no checksum is about. This is what.
    Incomplete(String),
}

/// A journal whose last batch was not written to its end, or that was made longer for more.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// Where its last whole batch ends.
    end: u64,
}

impl Tail {
    pub(super) fn cut_off(&self) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_len(self.end)?;
        file.sync_all()
    }
}

/// Looks at all files of the fjall database in `store`.
pub(super) fn verify(store: &Path, secret: &[u8; 16]) -> io::Result<Finding> {
    if read_all(&store.join("version"))? != *b"FJL\x03" {
        return Ok(Finding::Damaged("the file version is not what was written".to_owned()));
    }
    // 0 is fjall's own: the settings of the others.
    for id in [0, RECORDS] {
        if let Some(bad) = verify_keyspace(&keyspace(store, id))? {
            return Ok(bad);
        }
    }
    journals(store, secret)
}

/// Looks at the journals.
pub(super) fn journals(store: &Path, secret: &[u8; 16]) -> io::Result<Finding> {
    let paths = journal::paths(store)?;
    if paths.is_empty() {
        return Ok(Finding::Incomplete("there is no journal".to_owned()));
    }
    let mut tails = Vec::new();
    // The last journals first: a later batch tells what was safe when it was written.
    let mut synced = 0;
    for path in paths.into_iter().rev() {
        let found = journal::check(&path, secret)?;
        synced = synced.max(found.synced);
        // Without a batch before it, nothing tells which one is missing.
        let lost = found.torn && found.last.map_or(synced > 0, |last| synced > last);
        let proof = || format!("no batch at byte {}, and one behind it tells that there was one", found.end);
        if let Some(what) = found.damage.or_else(|| lost.then(proof)) {
            return Ok(Finding::Damaged(format!("{}: {what}", name(&path))));
        }
        if found.end < std::fs::metadata(&path)?.len() {
            tails.push(Tail { path, end: found.end });
        }
    }
    Ok(Finding::Sound(tails))
}

/// What is wrong with a keyspace.
fn verify_keyspace(dir: &Path) -> io::Result<Option<Finding>> {
    let missing = |path: &Path| Ok(Some(Finding::Incomplete(format!("{} is missing", path.display()))));
    let damaged =
        |path: &Path| Ok(Some(Finding::Damaged(format!("the checksum of {} is wrong", path.display()))));
    let current_path = dir.join("current");
    let Some(current) = existing(read_all(&current_path))? else { return missing(&current_path) };
    let Some((number, sum)) = parse_current(&current) else {
        return Ok(Some(Finding::Damaged(format!("{} does not make sense", current_path.display()))));
    };
    let manifest_path = dir.join(format!("v{number}"));
    let Some(manifest_sum) = existing(sum_of(&manifest_path))? else {
        // The number has no checksum of its own.
        return Ok(Some(Finding::Damaged(format!("{} names no manifest", current_path.display()))));
    };
    if manifest_sum != sum {
        return damaged(&manifest_path);
    }
    for (id, sum) in tables(&manifest_path)? {
        let path = dir.join("tables").join(id.to_string());
        match existing(sum_of(&path))? {
            None => return missing(&path),
            Some(table_sum) if table_sum != sum => return damaged(&path),
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The tables that make up a keyspace, if its manifest is sound. There may be more files: those that
/// were replaced, with records that are deleted since.
pub(super) fn named_tables(dir: &Path) -> Option<Vec<PathBuf>> {
    let (number, sum) = parse_current(&read_all(&dir.join("current")).ok()?)?;
    let manifest = dir.join(format!("v{number}"));
    if sum_of(&manifest).ok()? != sum {
        return None;
    }
    let named = tables(&manifest).ok()?.into_iter();
    Some(named.map(|(id, _)| dir.join("tables").join(id.to_string())).collect())
}

/// The number of the manifest and its checksum.
fn parse_current(bytes: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, kind) = rest.split_first_chunk::<16>()?;
    (kind == [0]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*sum)))
}

/// The tables that a manifest names, with their checksums.
fn tables(manifest: &Path) -> io::Result<Vec<(u64, u128)>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let reader = sfa::Reader::new(manifest).map_err(|error| match error {
        sfa::Error::Io(error) => error,
        other => invalid(&format!("{}: {other:?}", manifest.display())),
    })?;
    let section = reader.toc().section(b"tables").ok_or_else(|| invalid("a manifest without tables"))?;
    let mut r = section.buf_reader(manifest)?;
    let mut found = Vec::new();
    for _level in 0..u8::from_le_bytes(take(&mut r)?) {
        for _run in 0..u8::from_le_bytes(take(&mut r)?) {
            for _table in 0..u32::from_le_bytes(take(&mut r)?) {
                let id = u64::from_le_bytes(take(&mut r)?);
                let _kind: [u8; 1] = take(&mut r)?;
                let sum = u128::from_le_bytes(take(&mut r)?);
                let _sequence: [u8; 8] = take(&mut r)?;
                found.push((id, sum));
            }
        }
    }
    Ok(found)
}

fn take<const N: usize>(r: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    r.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// The checksum of a file as fjall counts it.
fn sum_of(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut chunk)?;
        match chunk.get(..n).filter(|new| !new.is_empty()) {
            Some(new) => hasher.update(new),
            None => return Ok(hasher.digest128()),
        }
    }
}

fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
