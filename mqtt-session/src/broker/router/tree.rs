use super::arena::Arena;
use super::edges::{EdgeHash, Edges};
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
    /// Nodes by their parent and their level, but for `+` and `#`. Peers choose levels, so these are hashed with
    /// a secret key.
    edges: Edges,
    hasher: KeyedHash,
}

#[derive(Debug)]
struct Node<V> {
    /// The level. It is in the node because a search that comes here has to compare it.
    text: Text,
    parent: NodeId,
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

    /// The child with this level, whose hash is `hash`.
    #[inline]
    fn child(&self, parent: NodeId, level: &[u8], hash: u64) -> Option<NodeId> {
        let hash = EdgeHash::new(hash, parent);
        let is_it = |node: &Node<V>| node.parent == parent && node.text.as_bytes() == level;
        self.edges.find(hash, |child| self.nodes.get(child).is_some_and(is_it))
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
        let wildcard = match level {
            b"+" => self.get(parent)?.wildcards().plus,
            b"#" => self.get(parent)?.wildcards().hash,
            _ => NONE,
        };
        if wildcard != NONE {
            return Some(wildcard);
        }
        self.child(parent, level, self.hasher.of_bytes(level))
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
        let first = core::mem::replace(&mut node.first_child, child);
        match Self::place_of(&mut node.value, level) {
            Some(place) => *place = child,
            None => {
                let hash = EdgeHash::new(self.hasher.of_bytes(level), parent);
                self.edges.insert(hash, child);
            }
        }
        if let Some(node) = self.nodes.get_mut(first) {
            node.previous = child;
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
            if !node.value.is_vacant() || node.first_child != NONE {
                return;
            }
            let (parent, previous, next) = (node.parent, node.previous, node.next);
            let hash = EdgeHash::new(self.hasher.of_bytes(node.text.as_bytes()), parent);
            // Wildcards are not there.
            self.edges.remove(hash, at);
            self.nodes.remove(at);
            if let Some(node) = self.nodes.get_mut(next) {
                node.previous = previous;
            }
            if let Some(node) = self.nodes.get_mut(previous) {
                node.next = next;
            }
            if let Some(node) = self.nodes.get_mut(parent) {
                if let Some(Wildcards { plus, hash }) = node.value.wildcards_mut() {
                    for child in [plus, hash] {
                        if *child == at {
                            *child = NONE;
                        }
                    }
                }
                if node.first_child == at {
                    node.first_child = next;
                }
            }
            at = parent;
        }
    }

    /// Calls `visit` for each node whose path, as a filter, matches `topic`. Its cost depends on the
    /// levels and on what matches, not on how many filters there are.
    pub(super) fn matching(&self, topic: &[u8], walk: &mut Walk, mut visit: impl FnMut(NodeId)) {
        // [MQTT-4.7.2-1]: wildcards at the front do not match topics that begin with $.
        let dollar = topic.first() == Some(&b'$');
        let Walk { active, next, .. } = walk;
        active.clear();
        active.push(ROOT);
        for level in topic.split(|&b| b == b'/') {
            next.clear();
            let hash = self.hasher.of_bytes(level);
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
                if node.first_child != NONE
                    && let Some(child) = self.child(at, level, hash)
                {
                    next.push(child);
                }
            }
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
                    if let Some(child) = self.child(at, level, hash) {
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
    wanted: Vec<Wanted>,
    stack: Vec<(NodeId, usize)>,
}

impl Walk {
    pub(super) fn shrink(&mut self) {
        self.active.shrink();
        self.next.shrink();
        self.wanted.shrink();
        self.stack.shrink();
    }
}
