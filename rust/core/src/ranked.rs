//! A sorted set of numbers that knows the rank of each member.
//!
//! Insert, remove and rank cost O(log n); the ends are found along the two outer spines, which stay in cache
//! because every push and pop uses them. It is a treap whose priorities are a fixed hash of the key: the same
//! members give the same shape, no randomness is drawn. Keys come from the daemon's own counter, so nobody
//! outside can choose them to unbalance the tree.

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    key: u64,
    left: u32,
    right: u32,
    /// Members of the subtree, this node included.
    size: u32,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct RankedSet {
    nodes: Vec<Node>,
    root: u32,
    /// Head of the list of unused nodes, chained by `left`.
    unused: u32,
}

/// The finaliser of splitmix64: a fixed mixing of the key's bits.
fn priority(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl RankedSet {
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            root: NIL,
            unused: NIL,
        }
    }

    pub fn len(&self) -> usize {
        self.size(self.root) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.root == NIL
    }

    pub fn contains(&self, key: u64) -> bool {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            match key.cmp(&node.key) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => at = node.left,
                std::cmp::Ordering::Greater => at = node.right,
            }
        }
        false
    }

    pub fn first(&self) -> Option<u64> {
        self.end_of_spine(|node| node.left)
    }

    pub fn last(&self) -> Option<u64> {
        self.end_of_spine(|node| node.right)
    }

    /// How many members are smaller than `key`; `key` need not be a member.
    pub fn rank(&self, key: u64) -> usize {
        let mut at = self.root;
        let mut smaller = 0;
        while at != NIL {
            let node = self.node(at);
            if key <= node.key {
                at = node.left;
            } else {
                smaller += self.size(node.left) + 1;
                at = node.right;
            }
        }
        smaller as usize
    }

    /// False when `key` was a member already.
    pub fn insert(&mut self, key: u64) -> bool {
        if self.contains(key) {
            return false;
        }
        let new = self.allocate(key);
        self.root = self.insert_below(self.root, new);
        true
    }

    /// False when `key` was no member.
    pub fn remove(&mut self, key: u64) -> bool {
        if !self.contains(key) {
            return false;
        }
        self.root = self.remove_below(self.root, key);
        if self.root == NIL {
            // A set that was once long does not hold its memory for ever.
            self.nodes.clear();
            self.nodes.shrink_to(64);
            self.unused = NIL;
        }
        true
    }

    /// The members in order; for moves of whole queues, not for decisions about one task.
    pub fn to_vec(&self) -> Vec<u64> {
        let mut keys = Vec::with_capacity(self.len());
        let mut path = Vec::new();
        let mut at = self.root;
        while at != NIL || !path.is_empty() {
            while at != NIL {
                path.push(at);
                at = self.node(at).left;
            }
            if let Some(top) = path.pop() {
                let node = self.node(top);
                keys.push(node.key);
                at = node.right;
            }
        }
        keys
    }

    fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    fn size(&self, at: u32) -> u32 {
        if at == NIL { 0 } else { self.node(at).size }
    }

    fn end_of_spine(&self, next: impl Fn(Node) -> u32) -> Option<u64> {
        let mut at = self.root;
        let mut key = None;
        while at != NIL {
            let node = self.node(at);
            key = Some(node.key);
            at = next(node);
        }
        key
    }

    fn allocate(&mut self, key: u64) -> u32 {
        let node = Node {
            key,
            left: NIL,
            right: NIL,
            size: 1,
        };
        if self.unused == NIL {
            self.nodes.push(node);
            // One node per queued task: four thousand million of them do not fit in memory.
            u32::try_from(self.nodes.len() - 1).unwrap_or(NIL - 1)
        } else {
            let at = self.unused;
            self.unused = self.node(at).left;
            self.nodes[at as usize] = node;
            at
        }
    }

    fn resize(&mut self, at: u32) {
        let node = self.node(at);
        self.nodes[at as usize].size = self.size(node.left) + self.size(node.right) + 1;
    }

    /// Goes down to where the new node's priority belongs; the subtree there becomes its two branches.
    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return new;
        }
        let (node, key) = (self.node(at), self.node(new).key);
        if priority(key) > priority(node.key) {
            let (smaller, larger) = self.split(at, key);
            self.nodes[new as usize].left = smaller;
            self.nodes[new as usize].right = larger;
            self.resize(new);
            return new;
        }
        if key < node.key {
            let below = self.insert_below(node.left, new);
            self.nodes[at as usize].left = below;
        } else {
            let below = self.insert_below(node.right, new);
            self.nodes[at as usize].right = below;
        }
        self.nodes[at as usize].size += 1;
        at
    }

    /// Two trees out of one: members smaller than `key`, and the others.
    fn split(&mut self, at: u32, key: u64) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        let node = self.node(at);
        if node.key < key {
            let (smaller, larger) = self.split(node.right, key);
            self.nodes[at as usize].right = smaller;
            self.resize(at);
            (at, larger)
        } else {
            let (smaller, larger) = self.split(node.left, key);
            self.nodes[at as usize].left = larger;
            self.resize(at);
            (smaller, at)
        }
    }

    /// One tree out of two; every member of `left` is smaller than every member of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        if priority(self.node(left).key) > priority(self.node(right).key) {
            let below = self.merge(self.node(left).right, right);
            self.nodes[left as usize].right = below;
            self.resize(left);
            left
        } else {
            let below = self.merge(left, self.node(right).left);
            self.nodes[right as usize].left = below;
            self.resize(right);
            right
        }
    }

    fn remove_below(&mut self, at: u32, key: u64) -> u32 {
        let node = self.node(at);
        if key == node.key {
            let rest = self.merge(node.left, node.right);
            self.nodes[at as usize].left = self.unused;
            self.unused = at;
            return rest;
        }
        if key < node.key {
            let below = self.remove_below(node.left, key);
            self.nodes[at as usize].left = below;
        } else {
            let below = self.remove_below(node.right, key);
            self.nodes[at as usize].right = below;
        }
        self.nodes[at as usize].size -= 1;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_agrees_with_a_sorted_list_under_mixed_use() {
        let mut set = RankedSet::new();
        let mut model = BTreeSet::new();
        for step in 0..4000u64 {
            let key = priority(step) % 512;
            if step % 3 == 0 {
                assert_eq!(set.remove(key), model.remove(&key));
            } else {
                assert_eq!(set.insert(key), model.insert(key));
            }
            assert_eq!(set.len(), model.len());
            assert_eq!(set.first(), model.first().copied());
            assert_eq!(set.last(), model.last().copied());
            let probe = priority(!step) % 512;
            assert_eq!(set.rank(probe), model.range(..probe).count());
            assert_eq!(set.contains(probe), model.contains(&probe));
        }
        assert_eq!(set.to_vec(), model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_emptied_set_gives_its_memory_back() {
        let mut set = RankedSet::new();
        for key in 0..10_000 {
            set.insert(key);
        }
        for key in 0..10_000 {
            assert_eq!(set.first(), Some(key));
            set.remove(key);
        }
        assert!(set.is_empty());
        assert!(set.nodes.capacity() <= 64);
    }

    #[test]
    fn arrivals_in_order_do_not_degrade_the_tree() {
        let mut set = RankedSet::new();
        for key in 0..100_000 {
            set.insert(key);
        }
        let mut deepest = 0;
        let mut path = vec![(set.root, 1u32)];
        while let Some((at, depth)) = path.pop() {
            if at != NIL {
                deepest = deepest.max(depth);
                let node = set.node(at);
                path.push((node.left, depth + 1));
                path.push((node.right, depth + 1));
            }
        }
        assert!(deepest < 60, "depth {deepest}");
    }
}
