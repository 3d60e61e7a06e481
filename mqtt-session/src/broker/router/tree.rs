use super::levels::{HASH, LevelId, Levels, PLUS};
use crate::random::IdMap;
use alloc::string::String;
use alloc::vec::Vec;
use slab::Slab;

/// The number of a node.
pub(super) type NodeId = u32;

pub(super) const ROOT: NodeId = 0;
const NONE: NodeId = NodeId::MAX;

/// What a node holds.
pub(super) trait Value: Default {
    /// Whether the node is needed for its own sake.
    fn is_vacant(&self) -> bool;
}

/// Topics or filters by level. Nothing recurses: nodes live in a slab, walking uses a list of its
/// own, and dropping drops the slab.
#[derive(Debug)]
pub(super) struct Tree<V> {
    nodes: Slab<Node<V>>,
    edges: IdMap<(NodeId, LevelId), NodeId>,
}

#[derive(Debug)]
struct Node<V> {
    parent: NodeId,
    level: LevelId,
    first_child: NodeId,
    previous: NodeId,
    next: NodeId,
    /// The children `+` and `#`, found without hashing.
    plus: NodeId,
    hash: NodeId,
    value: V,
}

impl<V: Value> Tree<V> {
    pub(super) fn new() -> Self {
        let mut tree = Self { nodes: Slab::new(), edges: IdMap::default() };
        tree.nodes.insert(Node::new(NONE, LevelId::MAX));
        tree
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() + self.edges.len()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&V> {
        self.nodes.get(node as usize).map(|node| &node.value)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut V> {
        self.nodes.get_mut(node as usize).map(|node| &mut node.value)
    }

    /// One above the highest number of a node.
    pub(super) fn places(&self) -> u64 {
        self.nodes.capacity() as u64
    }

    /// The path of a node.
    pub(super) fn path(&self, node: NodeId, levels: &Levels) -> String {
        let mut parts = Vec::new();
        let mut at = node;
        while let Some(node) = self.nodes.get(at as usize)
            && at != ROOT
        {
            parts.push(levels.text(node.level));
            at = node.parent;
        }
        parts.reverse();
        parts.join("/")
    }

    /// The node of exactly this path.
    pub(super) fn find(&self, path: &str, levels: &Levels) -> Option<NodeId> {
        let mut at = ROOT;
        for level in path.as_bytes().split(|&b| b == b'/') {
            at = *self.edges.get(&(at, levels.find(level)?))?;
        }
        Some(at)
    }

    /// The node of exactly this path, made if it is not there.
    pub(super) fn make(&mut self, path: &str, levels: &mut Levels) -> NodeId {
        let mut at = ROOT;
        for level in path.as_bytes().split(|&b| b == b'/') {
            if let Some(id) = levels.find(level)
                && let Some(&child) = self.edges.get(&(at, id))
            {
                at = child;
                continue;
            }
            at = self.add_child(at, levels.acquire(level));
        }
        at
    }

    fn add_child(&mut self, parent: NodeId, level: LevelId) -> NodeId {
        let child = NodeId::try_from(self.nodes.insert(Node::new(parent, level))).unwrap_or(NONE);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return child };
        let first = core::mem::replace(&mut node.first_child, child);
        match level {
            PLUS => node.plus = child,
            HASH => node.hash = child,
            _ => {}
        }
        if let Some(node) = self.nodes.get_mut(first as usize) {
            node.previous = child;
        }
        if let Some(node) = self.nodes.get_mut(child as usize) {
            node.next = first;
        }
        self.edges.insert((parent, level), child);
        child
    }

    /// Removes the node if nothing needs it, and then its ancestors that were there for it only.
    pub(super) fn prune(&mut self, node: NodeId, levels: &mut Levels) {
        let mut at = node;
        while at != ROOT {
            let Some(node) = self.nodes.get(at as usize) else { return };
            if !node.value.is_vacant() || node.first_child != NONE {
                return;
            }
            let (parent, level, previous, next) = (node.parent, node.level, node.previous, node.next);
            self.nodes.remove(at as usize);
            self.edges.remove(&(parent, level));
            levels.release(level);
            if let Some(node) = self.nodes.get_mut(next as usize) {
                node.previous = previous;
            }
            if let Some(node) = self.nodes.get_mut(previous as usize) {
                node.next = next;
            }
            if let Some(node) = self.nodes.get_mut(parent as usize) {
                if node.first_child == at {
                    node.first_child = next;
                }
                match level {
                    PLUS => node.plus = NONE,
                    HASH => node.hash = NONE,
                    _ => {}
                }
            }
            at = parent;
        }
    }

    fn child(&self, node: NodeId, level: LevelId) -> Option<NodeId> {
        self.edges.get(&(node, level)).copied()
    }

    /// Calls `visit` for each node whose path, as a filter, matches `topic`. Its cost depends on the
    /// levels and on what matches, not on how many filters there are.
    pub(super) fn matching(
        &self,
        topic: &[u8],
        levels: &Levels,
        walk: &mut Walk,
        mut visit: impl FnMut(NodeId),
    ) {
        // [MQTT-4.7.2-1]: wildcards at the front do not match topics that begin with $.
        let dollar = topic.first() == Some(&b'$');
        let Walk { active, next, .. } = walk;
        active.clear();
        active.push(ROOT);
        for level in topic.split(|&b| b == b'/') {
            next.clear();
            let id = levels.find(level);
            for &at in &*active {
                let Some(node) = self.nodes.get(at as usize) else { continue };
                if !(dollar && at == ROOT) {
                    if node.hash != NONE {
                        visit(node.hash);
                    }
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if let Some(child) = id.and_then(|id| self.child(at, id)) {
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
            if let Some(node) = self.nodes.get(at as usize)
                && node.hash != NONE
            {
                visit(node.hash);
            }
        }
    }

    /// Calls `visit` for each node whose path, as a topic, matches `filter`.
    pub(super) fn matched_by(
        &self,
        filter: &str,
        levels: &Levels,
        walk: &mut Walk,
        mut visit: impl FnMut(NodeId),
    ) {
        let Walk { wanted, stack, .. } = walk;
        wanted.clear();
        for level in filter.as_bytes().split(|&b| b == b'/') {
            match levels.find(level) {
                Some(id) => wanted.push(id),
                None => return,
            }
        }
        stack.clear();
        stack.push((ROOT, 0));
        while let Some((at, depth)) = stack.pop() {
            let Some(node) = self.nodes.get(at as usize) else { continue };
            let level = if depth == usize::MAX { Some(&HASH) } else { wanted.get(depth) };
            match level {
                None => visit(at),
                Some(&HASH) => {
                    visit(at);
                    self.push_children(node, at, usize::MAX, levels, stack);
                }
                Some(&PLUS) => self.push_children(node, at, depth + 1, levels, stack),
                Some(&id) => {
                    if let Some(child) = self.child(at, id) {
                        stack.push((child, depth + 1));
                    }
                }
            }
        }
    }

    fn push_children(
        &self,
        node: &Node<V>,
        at: NodeId,
        depth: usize,
        levels: &Levels,
        stack: &mut Vec<(NodeId, usize)>,
    ) {
        let mut child = node.first_child;
        while let Some(node) = self.nodes.get(child as usize) {
            // [MQTT-4.7.2-1]
            if at != ROOT || !levels.is_dollar(node.level) {
                stack.push((child, depth));
            }
            child = node.next;
        }
    }
}

impl<V: Value> Node<V> {
    fn new(parent: NodeId, level: LevelId) -> Self {
        Self {
            parent,
            level,
            first_child: NONE,
            previous: NONE,
            next: NONE,
            plus: NONE,
            hash: NONE,
            value: V::default(),
        }
    }
}

/// Memory that walks use, kept between them.
#[derive(Debug, Default)]
pub(super) struct Walk {
    active: Vec<NodeId>,
    next: Vec<NodeId>,
    wanted: Vec<LevelId>,
    stack: Vec<(NodeId, usize)>,
}
