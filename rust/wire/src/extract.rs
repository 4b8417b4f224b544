//! Finds the few values that a grammar names in one event, in a single pass.
//!
//! The JSON pointers are compiled into a trie whose leaves are numbered slots; a pass over the event fills one
//! [`Span`] per slot. No tree of values is built and nothing is allocated: what no pointer names is stepped over.

use crate::scan::{Kind, Malformed, Scanner, Span};

/// Number of a pointer in its [`Paths`].
pub(crate) type Slot = u16;

/// The pointers of one grammar.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    nodes: Vec<Node>,
    slots: Slot,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Set when a pointer ends here.
    slot: Option<Slot>,
    edges: Vec<Edge>,
    /// Some edge can be an array index.
    indexes: bool,
}

#[derive(Clone, Debug)]
struct Edge {
    key: Box<[u8]>,
    /// The first eight bytes of `key`, for a quick comparison.
    head: u64,
    /// `key` as an array index.
    index: Option<u32>,
    node: usize,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            slots: 0,
        }
    }
}

impl Paths {
    /// Adds a pointer (RFC 6901, checked by the caller). The same pointer twice is the same slot.
    pub(crate) fn insert(&mut self, pointer: &str) -> Slot {
        let mut at = 0;
        for token in pointer.split('/').skip(1) {
            at = self.child(at, &token.replace("~1", "/").replace("~0", "~"));
        }
        if let Some(slot) = self.nodes[at].slot {
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        self.nodes[at].slot = Some(slot);
        slot
    }

    fn child(&mut self, parent: usize, key: &str) -> usize {
        let key = key.as_bytes();
        if let Some(edge) = self.nodes[parent].edges.iter().find(|e| *e.key == *key) {
            return edge.node;
        }
        let node = self.nodes.len();
        let index = array_index(key);
        self.nodes.push(Node::default());
        let parent = &mut self.nodes[parent];
        parent.indexes |= index.is_some();
        parent.edges.push(Edge {
            key: key.into(),
            head: head_of(key, 0, key.len()),
            index,
            node,
        });
        node
    }

    /// Fills `found` with one span per slot.
    pub(crate) fn extract(&self, event: &[u8], found: &mut Vec<Span>) -> Result<(), Malformed> {
        found.clear();
        found.resize(usize::from(self.slots), Span::default());
        let mut pass = Pass {
            paths: self,
            event,
            scanner: Scanner::new(event),
            found,
        };
        pass.value(&self.nodes[0])?;
        pass.scanner.end()
    }
}

/// One pass over one event.
struct Pass<'a> {
    paths: &'a Paths,
    event: &'a [u8],
    scanner: Scanner<'a>,
    found: &'a mut Vec<Span>,
}

impl<'a> Pass<'a> {
    /// Recursion is as deep as the longest pointer, never as deep as the event.
    fn value(&mut self, node: &'a Node) -> Result<(), Malformed> {
        let first = self.scanner.peek()?;
        let start = self.scanner.position();
        let span = match first {
            b'{' if !node.edges.is_empty() => {
                self.object(node)?;
                self.walked(Kind::Object, start)
            }
            b'[' if node.indexes => {
                self.array(node)?;
                self.walked(Kind::Array, start)
            }
            _ => self.scanner.value()?,
        };
        if let Some(slot) = node.slot {
            self.found[usize::from(slot)] = span;
        }
        Ok(())
    }

    fn walked(&self, kind: Kind, start: usize) -> Span {
        Span {
            kind,
            start: start as u32,
            end: self.scanner.position() as u32,
        }
    }

    fn object(&mut self, node: &'a Node) -> Result<(), Malformed> {
        self.scanner.expect(b'{')?;
        if self.scanner.eat(b'}')? {
            return Ok(());
        }
        loop {
            let name = self.scanner.key()?;
            match self.edge(node, name) {
                Some(edge) => self.value(&self.paths.nodes[edge.node])?,
                None => _ = self.scanner.value()?,
            }
            if !self.scanner.eat(b',')? {
                return self.scanner.expect(b'}');
            }
        }
    }

    fn array(&mut self, node: &'a Node) -> Result<(), Malformed> {
        self.scanner.expect(b'[')?;
        if self.scanner.eat(b']')? {
            return Ok(());
        }
        let mut index = 0_u32;
        loop {
            match node.edges.iter().find(|edge| edge.index == Some(index)) {
                Some(edge) => self.value(&self.paths.nodes[edge.node])?,
                None => _ = self.scanner.value()?,
            }
            index = index.saturating_add(1);
            if !self.scanner.eat(b',')? {
                return self.scanner.expect(b']');
            }
        }
    }

    fn edge(&self, node: &'a Node, name: Span) -> Option<&'a Edge> {
        if name.kind == Kind::Escaped {
            return escaped_edge(node, name.bytes(self.event));
        }
        let (start, end) = (name.start as usize, name.end as usize);
        let head = head_of(self.event, start, end);
        node.edges.iter().find(|edge| {
            edge.head == head
                && edge.key.len() == end - start
                && (edge.key.len() <= 8 || edge.key[8..] == self.event[start + 8..end])
        })
    }
}

/// A name written with escapes. No engine does so; it is compared as text, and may allocate.
fn escaped_edge<'a>(node: &'a Node, raw: &[u8]) -> Option<&'a Edge> {
    let quoted = [b"\"", raw, b"\""].concat();
    let name = serde_json::from_slice::<String>(&quoted).ok()?;
    node.edges.iter().find(|edge| *edge.key == *name.as_bytes())
}

/// Up to eight bytes of `bytes[start..end]` as a number, short keys padded with zeros.
fn head_of(bytes: &[u8], start: usize, end: usize) -> u64 {
    let length = end - start;
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(block) if length >= 8 => u64::from_le_bytes(*block),
        Some(block) => u64::from_le_bytes(*block) & !(u64::MAX << (8 * length)),
        None => bytes[start..end]
            .iter()
            .rev()
            .fold(0, |head, byte| (head << 8) | u64::from(*byte)),
    }
}

/// RFC 6901: digits without leading zeros.
fn array_index(key: &[u8]) -> Option<u32> {
    if key.len() > 1 && key.starts_with(b"0") {
        return None;
    }
    crate::scan::parse_u32(key)
}

#[cfg(test)]
mod tests {
    use super::{Paths, Slot};
    use crate::scan::{Kind, Malformed, Span};
    use proptest::prelude::*;

    fn paths(pointers: &[&str]) -> (Paths, Vec<Slot>) {
        let mut paths = Paths::default();
        let slots = pointers.iter().map(|p| paths.insert(p)).collect();
        (paths, slots)
    }

    fn found(pointers: &[&str], event: &str) -> Vec<(Kind, String)> {
        let (paths, slots) = paths(pointers);
        let mut spans = Vec::new();
        paths.extract(event.as_bytes(), &mut spans).unwrap();
        slots
            .iter()
            .map(|slot| {
                let span: Span = spans[usize::from(*slot)];
                let text = String::from_utf8_lossy(span.bytes(event.as_bytes()));
                (span.kind, text.into_owned())
            })
            .collect()
    }

    #[test]
    fn test_values_are_found_at_every_depth() {
        let event = r#"{"skip":[{"content":"no"}],"choices":[{"delta":{"content":"yes"},"index":0},{"index":1}],"n":7}"#;
        assert_eq!(
            found(
                &[
                    "/choices/0/delta/content",
                    "/n",
                    "/choices/1/index",
                    "/missing"
                ],
                event
            ),
            [
                (Kind::Plain, "yes".to_owned()),
                (Kind::Number, "7".to_owned()),
                (Kind::Number, "1".to_owned()),
                (Kind::Absent, String::new()),
            ]
        );
    }

    #[test]
    fn test_a_pointer_may_end_inside_another() {
        let pointers = ["/error", "/error/message"];
        assert_eq!(
            found(&pointers, r#"{"error":{"message":"m"}}"#),
            [
                (Kind::Object, r#"{"message":"m"}"#.to_owned()),
                (Kind::Plain, "m".to_owned())
            ]
        );
        assert_eq!(
            found(&pointers, r#"{"error":"text"}"#),
            [
                (Kind::Plain, "text".to_owned()),
                (Kind::Absent, String::new())
            ]
        );
    }

    #[test]
    fn test_other_types_than_expected_are_stepped_over() {
        for event in [
            r#"{"a":null}"#,
            r#"{"a":[1]}"#,
            r#"{"a":"x"}"#,
            "[1,2]",
            "null",
            "3",
        ] {
            assert_eq!(found(&["/a/b"], event)[0].0, Kind::Absent, "{event}");
        }
    }

    #[test]
    fn test_names_that_begin_alike_are_told_apart() {
        let pointers = ["/tokens", "/tokens_predicted", "/tokens_evaluated"];
        let event =
            r#"{"tokens_evaluated":3,"tokens_predicted":2,"tokens":1,"tokens_pred":0,"toke":9}"#;
        let texts: Vec<String> = found(&pointers, event).into_iter().map(|f| f.1).collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }

    #[test]
    fn test_escapes_in_pointers_and_in_names() {
        let event = r#"{"a/b":1,"m~n":2,"\u0063":3}"#;
        let texts: Vec<String> = found(&["/a~1b", "/m~0n", "/c"], event)
            .into_iter()
            .map(|f| f.1)
            .collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }

    #[test]
    fn test_the_same_pointer_is_the_same_slot_and_the_last_of_two_members_wins() {
        let (_, slots) = paths(&["/a", "/b", "/a"]);
        assert_eq!(slots, [0, 1, 0]);
        assert_eq!(found(&["/a"], r#"{"a":1,"a":2}"#)[0].1, "2");
    }

    #[test]
    fn test_a_broken_event_is_malformed() {
        let (paths, _) = paths(&["/a/0"]);
        for event in [r#"{"a":[1}"#, r#"{"a":1"#, r#"{"a":1} x"#, "[DONE]", ""] {
            assert_eq!(
                paths.extract(event.as_bytes(), &mut Vec::new()),
                Err(Malformed),
                "{event}"
            );
        }
    }

    proptest! {
        #[test]
        fn test_agrees_with_pointers_of_serde_json(
            a in any::<Option<u32>>(), b in ".{0,20}", list in prop::collection::vec(any::<i32>(), 0..4)
        ) {
            let value = serde_json::json!({"x": {"a": a, "b": b}, "list": list, "b": [b, {"a": a}]});
            let event = value.to_string();
            let pointers = ["/x/a", "/x/b", "/list/0", "/list/2", "/b/1/a", "/b/0", "/list"];
            for ((kind, text), pointer) in found(&pointers, &event).into_iter().zip(pointers) {
                let text = if matches!(kind, Kind::Plain | Kind::Escaped) { format!("\"{text}\"") } else { text };
                let wanted = value.pointer(pointer);
                prop_assert_eq!(kind == Kind::Absent, wanted.is_none());
                if let Some(wanted) = wanted {
                    prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&text).unwrap(), wanted);
                }
            }
        }
    }
}
