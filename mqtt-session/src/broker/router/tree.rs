use super::arena::Arena;
use super::edges::{EdgeHash, Edges, Search};
use super::text::Text;
use crate::broker::shrink::Shrink;
use crate::random::KeyedHash;
use alloc::string::String;
use alloc::vec::Vec;

/// The number of a node.
pub(super) type NodeId = u32;

pub(super) const ROOT: NodeId = 0;
const NONE: NodeId = NodeId::MAX;

/// What a node holds.
pub(super) trait Value: Default {
    /// Whether the node is needed for its own sake.
    fn is_vacant(&self) -> bool;

    /// The children `+` and `#`, found without hashing; [`Wildcards::NONE`] if these are levels like others, as
    /// in topics.
    fn wildcards(&self) -> Wildcards;

    /// The same, to be changed.
    fn wildcards_mut(&mut self) -> Option<&mut Wildcards>;
}

/// The children `+` and `#` of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wildcards {
    plus: NodeId,
    hash: NodeId,
}

impl Wildcards {
    pub(super) const NONE: Self = Self { plus: NONE, hash: NONE };
}

impl Default for Wildcards {
    fn default() -> Self {
        Self::NONE
    }
}

/// Topics or filters by level. Nothing recurses: nodes live in an arena, walking uses a list of its
/// own, and dropping drops the arena.
#[derive(Debug)]
pub(super) struct Tree<V> {
    nodes: Arena<Node<V>>,
    /// Nodes by their parent and their level, where the parent has several that are not `+` or `#`: a single one is the
    /// parent's first child, which mostly lies beside it. Peers choose levels, so these are hashed with a secret key.
    edges: Edges,
    hasher: KeyedHash,
}

#[derive(Debug)]
struct Node<V> {
    /// The level. It is in the node because a search that comes here has to compare it.
    text: Text,
    parent: NodeId,
    /// Of a list of all children but `+` and `#` in a filter.
    first_child: NodeId,
    previous: NodeId,
    next: NodeId,
    value: V,
}

fn levels(path: &str) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|&b| b == b'/')
}

impl<V: Value> Tree<V> {
    pub(super) fn new(hasher: KeyedHash) -> Self {
        let mut nodes = Arena::new();
        nodes.insert(Node::new(NONE, b""));
        Self { nodes, edges: Edges::default(), hasher }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() + self.edges.len()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&V> {
        self.nodes.get(node).map(|node| &node.value)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut V> {
        self.nodes.get_mut(node).map(|node| &mut node.value)
    }

    /// One above the highest number of a node.
    pub(super) fn places(&self) -> u64 {
        self.nodes.places() as u64
    }

    /// The path of a node.
    pub(super) fn path(&self, node: NodeId) -> String {
        let mut parts = Vec::new();
        let mut at = node;
        while let Some(node) = self.nodes.get(at)
            && at != ROOT
        {
            // Levels are parts of texts.
            parts.push(core::str::from_utf8(node.text.as_bytes()).unwrap_or_default());
            at = node.parent;
        }
        parts.reverse();
        parts.join("/")
    }

    /// The child with this level, which is not a wildcard; `first` is the first child.
    fn child(
        &self,
        parent: NodeId,
        first: NodeId,
        level: &[u8],
        hash: impl FnOnce() -> u64,
    ) -> Option<NodeId> {
        match self.only_child(first)? {
            Some(only) => (only == level).then_some(first),
            None => {
                let hash = EdgeHash::new(hash(), parent);
                self.found(parent, level, self.edges.search(hash))
            }
        }
    }

    /// The level of the first child, if it is the only one; `None` if there are none.
    #[inline]
    fn only_child(&self, first: NodeId) -> Option<Option<&[u8]>> {
        if first == NONE {
            return None;
        }
        let child = self.nodes.get(first)?;
        Some((child.next == NONE).then(|| child.text.as_bytes()))
    }

    #[inline]
    fn found(&self, parent: NodeId, level: &[u8], search: Search) -> Option<NodeId> {
        let is_it = |node: &Node<V>| node.parent == parent && node.text.as_bytes() == level;
        self.edges.find(search, |child| self.nodes.get(child).is_some_and(is_it))
    }

    fn edge(&self, parent: NodeId, child: NodeId) -> EdgeHash {
        let level = self.nodes.get(child).map_or(&[][..], |node| node.text.as_bytes());
        EdgeHash::new(self.hasher.of_bytes(level), parent)
    }

    /// Where a node keeps the child with this level, if not among all others.
    fn place_of<'a>(value: &'a mut V, level: &[u8]) -> Option<&'a mut NodeId> {
        match (level, value.wildcards_mut()) {
            (b"+", Some(wildcards)) => Some(&mut wildcards.plus),
            (b"#", Some(wildcards)) => Some(&mut wildcards.hash),
            _ => None,
        }
    }

    /// The child with this level, which may be a wildcard.
    fn step(&self, parent: NodeId, level: &[u8]) -> Option<NodeId> {
        let node = self.nodes.get(parent)?;
        let Wildcards { plus, hash } = node.value.wildcards();
        match level {
            b"+" if plus != NONE => Some(plus),
            b"#" if hash != NONE => Some(hash),
            _ => self.child(parent, node.first_child, level, || self.hasher.of_bytes(level)),
        }
    }

    /// The node of exactly this path.
    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        levels(path).try_fold(ROOT, |at, level| self.step(at, level))
    }

    /// The node of exactly this path, made if it is not there.
    pub(super) fn make(&mut self, path: &str) -> NodeId {
        levels(path).fold(ROOT, |at, level| match self.step(at, level) {
            Some(child) => child,
            None => self.add_child(at, level),
        })
    }

    fn add_child(&mut self, parent: NodeId, level: &[u8]) -> NodeId {
        let child = self.nodes.insert(Node::new(parent, level));
        let Some(node) = self.nodes.get_mut(parent) else { return child };
        if let Some(place) = Self::place_of(&mut node.value, level) {
            *place = child;
            return child;
        }
        let first = core::mem::replace(&mut node.first_child, child);
        if let Some(only) = self.nodes.get_mut(first) {
            only.previous = child;
            let was_single = only.next == NONE;
            if was_single {
                self.edges.insert(self.edge(parent, first), first);
            }
            self.edges.insert(self.edge(parent, child), child);
        }
        if let Some(node) = self.nodes.get_mut(child) {
            node.next = first;
        }
        child
    }

    pub(super) fn shrink(&mut self) {
        self.nodes.shrink();
        self.edges.shrink();
    }

    /// Removes the node if nothing needs it, and then its ancestors that were there for it only.
    pub(super) fn prune(&mut self, node: NodeId) {
        let mut at = node;
        while at != ROOT {
            let Some(node) = self.nodes.get(at) else { return };
            let Wildcards { plus, hash } = node.value.wildcards();
            if !node.value.is_vacant() || node.first_child != NONE || plus != NONE || hash != NONE {
                return;
            }
            let parent = node.parent;
            self.unlink(at);
            self.nodes.remove(at);
            at = parent;
        }
    }

    /// Takes a node from its parent.
    fn unlink(&mut self, child: NodeId) {
        let Some(&Node { parent, previous, next, .. }) = self.nodes.get(child) else { return };
        let Some(node) = self.nodes.get_mut(parent) else { return };
        if let Some(Wildcards { plus, hash }) = node.value.wildcards_mut() {
            for wildcard in [plus, hash] {
                if *wildcard == child {
                    *wildcard = NONE;
                    return;
                }
            }
        }
        if node.first_child == child {
            node.first_child = next;
        }
        let first = node.first_child;
        if first == NONE {
            return;
        }
        self.edges.remove(self.edge(parent, child), child);
        if let Some(node) = self.nodes.get_mut(next) {
            node.previous = previous;
        }
        if let Some(node) = self.nodes.get_mut(previous) {
            node.next = next;
        }
        if self.nodes.get(first).is_some_and(|only| only.next == NONE) {
            self.edges.remove(self.edge(parent, first), first);
        }
    }

    /// Calls `visit` for each node whose path, as a filter, matches `topic`. Its cost depends on the
    /// levels and on what matches, not on how many filters there are.
    pub(super) fn matching(&self, topic: &[u8], walk: &mut Walk, mut visit: impl FnMut(NodeId)) {
        // [MQTT-4.7.2-1]: wildcards at the front do not match topics that begin with $.
        let dollar = topic.first() == Some(&b'$');
        let Walk { active, next, searches, .. } = walk;
        active.clear();
        active.push(ROOT);
        for level in topic.split(|&b| b == b'/') {
            next.clear();
            let mut hashed = None;
            for &at in &*active {
                let Some(node) = self.nodes.get(at) else { continue };
                if !(dollar && at == ROOT) {
                    let Wildcards { plus, hash } = node.value.wildcards();
                    if hash != NONE {
                        visit(hash);
                    }
                    if plus != NONE {
                        next.push(plus);
                    }
                }
                match self.only_child(node.first_child) {
                    Some(Some(only)) if only == level => next.push(node.first_child),
                    Some(None) => {
                        let hash = *hashed.get_or_insert_with(|| self.hasher.of_bytes(level));
                        searches.push((at, self.edges.search(EdgeHash::new(hash, at))));
                    }
                    _ => {}
                }
            }
            next.extend(searches.drain(..).filter_map(|(parent, search)| self.found(parent, level, search)));
            core::mem::swap(active, next);
            if active.is_empty() {
                return;
            }
        }
        for &at in &*active {
            visit(at);
            // `a/#` matches `a` too.
            if let Some(value) = self.get(at)
                && value.wildcards().hash != NONE
            {
                visit(value.wildcards().hash);
            }
        }
    }

    /// Calls `visit` for each node whose path, as a topic, matches `filter`.
    pub(super) fn matched_by(&self, filter: &str, walk: &mut Walk, mut visit: impl FnMut(NodeId)) {
        let Walk { wanted, stack, .. } = walk;
        wanted.clear();
        let mut from = 0;
        for level in levels(filter) {
            let to = from + level.len();
            wanted.push(match level {
                b"+" => Wanted::Plus,
                b"#" => Wanted::Hash,
                _ => Wanted::Level(from, to, self.hasher.of_bytes(level)),
            });
            from = to + 1;
        }
        stack.clear();
        stack.push((ROOT, 0));
        while let Some((at, depth)) = stack.pop() {
            let Some(node) = self.nodes.get(at) else { continue };
            match if depth == ALL { Some(&Wanted::Hash) } else { wanted.get(depth) } {
                None => visit(at),
                Some(Wanted::Hash) => {
                    visit(at);
                    self.push_children(node, at, ALL, stack);
                }
                Some(Wanted::Plus) => self.push_children(node, at, depth + 1, stack),
                Some(&Wanted::Level(from, to, hash)) => {
                    let level = filter.as_bytes().get(from..to).unwrap_or_default();
                    if let Some(child) = self.child(at, node.first_child, level, || hash) {
                        stack.push((child, depth + 1));
                    }
                }
            }
        }
    }

    /// Whether a node whose path, as a topic, matches `filter` can be there: what stands before the first wildcard is.
    pub(super) fn may_be_matched_by(&self, filter: &str) -> bool {
        let mut before = levels(filter).take_while(|level| !matches!(*level, b"+" | b"#"));
        before.try_fold(ROOT, |at, level| self.step(at, level)).is_some()
    }

    fn push_children(&self, node: &Node<V>, at: NodeId, depth: usize, stack: &mut Vec<(NodeId, usize)>) {
        let mut child = node.first_child;
        while let Some(node) = self.nodes.get(child) {
            // [MQTT-4.7.2-1]
            if at != ROOT || node.text.as_bytes().first() != Some(&b'$') {
                stack.push((child, depth));
            }
            child = node.next;
        }
    }
}

impl<V: Value> Node<V> {
    fn new(parent: NodeId, level: &[u8]) -> Self {
        Self {
            text: Text::new(level),
            parent,
            first_child: NONE,
            previous: NONE,
            next: NONE,
            value: V::default(),
        }
    }
}

/// The depth from which on everything is wanted.
const ALL: usize = usize::MAX;

/// What a filter wants of a level.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Plus,
    Hash,
    /// Exactly this part of the filter, and its hash.
    Level(usize, usize, u64),
}

/// Memory that walks use, kept between them.
#[derive(Debug, Default)]
pub(super) struct Walk {
    active: Vec<NodeId>,
    next: Vec<NodeId>,
    searches: Vec<(NodeId, Search)>,
    wanted: Vec<Wanted>,
    stack: Vec<(NodeId, usize)>,
}

impl Walk {
    pub(super) fn shrink(&mut self) {
        self.active.shrink();
        self.next.shrink();
        self.searches.shrink();
        self.wanted.shrink();
        self.stack.shrink();
    }
}

#[cfg(test)]
mod tests;
