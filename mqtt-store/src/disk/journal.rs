//! Reads fjall's journals, without changing them.
//!
//! fjall cuts a journal off where it stops making sense. After a crash that is right: the last batch
//! was never acknowledged. But a flipped bit in the middle would cut off what was. So before fjall
//! opens them, journals are read here, and what is sound behind the cut proves the damage.
//!
//! The format is that of fjall 3, whose exact version this crate requires. All numbers are
//! little-endian:
//!
//! ```text
//! batch  = 1, items u32, sequence u64, item.., 3, checksum u64, "FJL", 3
//! item   = 2, kind u8, compression u8, keyspace u64, key u16, value u32, value u32, key.., value..
//! ```
//!
//! The checksum is over the items.

use super::layout::{Mark, SECRET_AT};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: [u8; 4] = *b"FJL\x03";
const START_LEN: usize = 1 + 4 + 8;
const END_LEN: usize = 1 + 8 + MAGIC.len();
const ITEM_LEN: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
/// From the start of a batch to the secret in its mark: the key of a mark is one byte.
const TO_SECRET: usize = START_LEN + ITEM_LEN + 1 + SECRET_AT;

/// A change as it stands in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) keyspace: u64,
    pub(super) key: &'a [u8],
    /// `None` if the key is removed.
    pub(super) value: Option<&'a [u8]>,
}

/// A batch that is whole: its checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch<'a> {
    pub(super) sequence: u64,
    pub(super) items: Vec<Item<'a>>,
    end: usize,
}

impl Batch<'_> {
    /// The mark in front, if it is one of this store.
    fn mark(&self, secret: &[u8; 16]) -> Option<Mark> {
        let first = self.items.first()?;
        Mark::decode(first.key, first.value?).ok().filter(|mark| mark.secret == *secret)
    }
}

/// A journal or the end of one, in memory. A whole one is read for salvaging only: it has up to
/// 64 MB and a batch.
#[derive(Debug)]
pub(super) struct Journal {
    bytes: Vec<u8>,
}

/// The journals in `store`, oldest first.
pub(super) fn paths(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "jnl")
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

impl Journal {
    /// Reads a journal from byte `from` on, without the zeros behind its end.
    pub(super) fn read(path: &Path, from: u64) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let (mut chunk, nothing) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        // fjall makes a new journal longer than what is in it. Its last batch ends in no zero.
        let mut zeros = 0;
        loop {
            let n = file.read(&mut chunk)?;
            let Some(new) = chunk.get(..n).filter(|new| !new.is_empty()) else { break };
            let empty = nothing.starts_with(new);
            let last = if empty { None } else { new.iter().rposition(|byte| *byte != 0) };
            let used = last.map_or(0, |last| last + 1);
            if let Some(new) = new.get(..used).filter(|new| !new.is_empty()) {
                bytes.resize(bytes.len() + zeros, 0);
                bytes.extend_from_slice(new);
                zeros = 0;
            }
            zeros += n - used;
        }
        Ok(Self { bytes })
    }

    fn batch_at(&self, at: usize) -> Option<Batch<'_>> {
        batch_at(&self.bytes, at)
    }

    /// The batches up to the first that is not whole, and where that is.
    fn prefix(&self) -> (Vec<Batch<'_>>, usize) {
        let mut at = 0;
        let mut batches = Vec::new();
        while let Some(batch) = self.batch_at(at) {
            at = batch.end;
            batches.push(batch);
        }
        (batches, at)
    }

    /// All batches that are whole, those behind a damage included: of these, only such as nobody but
    /// this store can have written.
    pub(super) fn batches(&self, secret: &[u8; 16]) -> Vec<Batch<'_>> {
        let (mut batches, mut at) = self.prefix();
        while let Some((batch, _)) = self.next_marked(at, secret) {
            at = batch.end;
            batches.push(batch);
        }
        batches
    }

    /// The first batch of this store that is whole and begins at or behind `from`.
    fn next_marked(&self, from: usize, secret: &[u8; 16]) -> Option<(Batch<'_>, Mark)> {
        let mut at = from;
        loop {
            let window = self.bytes.get(at.checked_add(TO_SECRET)?..)?;
            let start = at + window.windows(secret.len()).position(|bytes| bytes == secret)?;
            if let Some(batch) = self.batch_at(start)
                && let Some(mark) = batch.mark(secret)
            {
                return Some((batch, mark));
            }
            at = start + 1;
        }
    }
}

/// The batch at `at`, if it is whole.
fn batch_at(bytes: &[u8], at: usize) -> Option<Batch<'_>> {
    let mut rest = Cursor { bytes, at };
    if rest.u8()? != START {
        return None;
    }
    let count = u32::from_le_bytes(rest.array()?);
    let sequence = u64::from_le_bytes(rest.array()?);
    let first = rest.at;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(rest.item()?);
    }
    let last = rest.at;
    if rest.u8()? != END {
        return None;
    }
    let sum = u64::from_le_bytes(rest.array()?);
    let whole = rest.array()? == MAGIC && xxh3_64(bytes.get(first..last)?) == sum;
    whole.then_some(Batch { sequence, items, end: rest.at })
}

/// Reads as much as looks like a batch into `buffer`; `false` if it does not.
fn read_batch(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut more = |buffer: &mut Vec<u8>, n: usize| -> io::Result<Option<usize>> {
        let at = buffer.len();
        // Grows by what is there, whatever a length claims.
        let read = reader.by_ref().take(n as u64).read_to_end(buffer)?;
        Ok((read == n).then_some(at))
    };
    buffer.clear();
    if more(buffer, START_LEN)?.is_none() {
        return Ok(false);
    }
    let mut start = Cursor { bytes: buffer, at: 0 };
    let (Some(START), Some(count)) = (start.u8(), start.array()) else { return Ok(false) };
    for _ in 0..u32::from_le_bytes(count) {
        let Some(at) = more(buffer, ITEM_LEN)? else { return Ok(false) };
        let Some(len) = (Cursor { bytes: buffer, at }).item_len() else { return Ok(false) };
        if more(buffer, len)?.is_none() {
            return Ok(false);
        }
    }
    Ok(more(buffer, END_LEN)?.is_some())
}

/// What a look at a journal found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Where its last whole batch ends.
    pub(super) end: u64,
    /// Whether something follows there that is none.
    pub(super) torn: bool,
    /// The number of the last batch before that, if there is one.
    pub(super) last: Option<u64>,
    /// The highest number of a batch that was synced when a batch in here was written.
    pub(super) synced: u64,
    /// What proves a damage, whatever is in other journals.
    pub(super) damage: Option<String>,
}

/// Looks at a journal.
pub(super) fn check(path: &Path, secret: &[u8; 16]) -> io::Result<Checked> {
    /// No program makes so many changes between two of its own.
    const APART: u64 = 1 << 32;
    let out_of_sequence = |mark: &Mark| Some(format!("the sequence number of batch {} is wrong", mark.batch));
    let mut found = Checked::default();
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
    let mut buffer = Vec::new();
    let mut last: Option<(u64, Mark)> = None;
    while read_batch(&mut reader, &mut buffer)?
        && let Some(batch) = batch_at(&buffer, 0)
    {
        found.end += batch.end as u64;
        let Some(mark) = batch.mark(secret) else { continue };
        // fjall has no checksum over sequence numbers. Two marks tell what lies between them.
        if let Some((sequence, before)) = last
            && !(before.sequence..mark.sequence).contains(&sequence)
        {
            found.damage = out_of_sequence(&before);
        }
        last = Some((batch.sequence, mark));
        found.synced = found.synced.max(mark.synced);
    }
    if let Some((sequence, mark)) = last
        && sequence.checked_sub(mark.sequence).is_none_or(|apart| apart > APART)
    {
        found.damage = out_of_sequence(&mark);
    }
    found.last = last.map(|(_, mark)| mark.batch);
    let tail = Journal::read(path, found.end)?;
    found.torn = !tail.bytes.is_empty();
    let mut at = 0;
    while let Some((batch, mark)) = tail.next_marked(at, secret) {
        found.synced = found.synced.max(mark.synced);
        at = batch.end;
    }
    // A program that is killed leaves the beginning of what it wrote, and a loss of power may leave
    // holes in it. This was written to its end, and has none.
    if tail.bytes.ends_with(&MAGIC) && !has_hole(&tail.bytes, found.end) && found.damage.is_none() {
        found.damage = Some(format!("no batch at byte {}, but the end of one", found.end));
    }
    Ok(found)
}

/// Whether a sector of `bytes`, which lie at byte `at` of their file, has nothing but zeros.
fn has_hole(bytes: &[u8], at: u64) -> bool {
    const SECTOR: usize = 512;
    let first = (at.next_multiple_of(SECTOR as u64) - at) as usize;
    let mut sectors = bytes.get(first..).unwrap_or_default().chunks_exact(SECTOR);
    sectors.any(|sector| sector.iter().all(|byte| *byte == 0))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(n)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// How much follows the fixed part of an item.
    fn item_len(&mut self) -> Option<usize> {
        if self.u8()? != ITEM {
            return None;
        }
        // Kind, compression, keyspace.
        self.take(1 + 1 + 8)?;
        let key_len = u16::from_le_bytes(self.array()?);
        let _value_len: [u8; 4] = self.array()?;
        let stored_len = u32::from_le_bytes(self.array()?);
        usize::from(key_len).checked_add(stored_len.try_into().ok()?)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        if self.u8()? != ITEM {
            return None;
        }
        let kind = self.u8()?;
        let uncompressed = self.u8()? == 0;
        let keyspace = u64::from_le_bytes(self.array()?);
        let key_len = u16::from_le_bytes(self.array()?);
        let value_len = u32::from_le_bytes(self.array()?);
        let stored_len = u32::from_le_bytes(self.array()?);
        let key = self.take(key_len.into())?;
        let value = self.take(stored_len.try_into().ok()?)?;
        // Other kinds exist; this crate writes these two.
        let known = uncompressed && value_len == stored_len && kind <= 1;
        known.then_some(Item { keyspace, key, value: (kind == 0).then_some(value) })
    }
}
