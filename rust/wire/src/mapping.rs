//! Turns a task's parameters into an engine's request body, after the adapter's template.
//!
//! A template is plain JSON in which `{"$": "name"}` stands for the parameter `name`, which must be there, and
//! `{"$?": "name"}` for one that may be missing: then the member or list element that holds it is left out.
//! A parameter that is `null` counts as missing. What does not depend on parameters is written as text once.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::adapter::AdapterError;

/// A checked and compiled body template.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Template(Node);

#[derive(Clone, Debug)]
enum Node {
    /// JSON text without parameters.
    Fixed(Box<[u8]>),
    /// Members with their names as JSON text, colon included.
    Object(Vec<(Box<[u8]>, Node)>),
    List(Vec<Node>),
    Param(String),
    Optional(String),
}

impl TryFrom<Value> for Template {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match compile(value)? {
            Node::Optional(name) => Err(format!(
                "the whole body cannot be the optional parameter: `{name}`; use `$`"
            )),
            node => Ok(Self(node)),
        }
    }
}

impl Template {
    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`AdapterError::MissingParam`] when a parameter that the template needs is not there.
    pub fn render(
        &self,
        params: &Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), AdapterError> {
        write(&self.0, params, out)
    }
}

fn compile(value: Value) -> Result<Node, String> {
    match value {
        Value::Object(members) => compile_object(members),
        Value::Array(elements) => {
            let nodes = elements
                .into_iter()
                .map(compile)
                .collect::<Result<_, _>>()?;
            Ok(fold(Node::List(nodes)))
        }
        scalar => Ok(Node::Fixed(scalar.to_string().into_bytes().into())),
    }
}

fn compile_object(members: Map<String, Value>) -> Result<Node, String> {
    if let Some(mark) = members.keys().find(|name| name.starts_with('$')) {
        return parameter(mark, &members);
    }
    let mut nodes = Vec::with_capacity(members.len());
    for (name, value) in members {
        let label = format!("{}:", Value::String(name)).into_bytes().into();
        nodes.push((label, compile(value)?));
    }
    Ok(fold(Node::Object(nodes)))
}

fn parameter(mark: &str, members: &Map<String, Value>) -> Result<Node, String> {
    match (mark, members.len(), members.get(mark)) {
        ("$", 1, Some(Value::String(name))) => Ok(Node::Param(name.clone())),
        ("$?", 1, Some(Value::String(name))) => Ok(Node::Optional(name.clone())),
        _ => Err(format!(
            "a member named `{mark}` must be `{{\"$\": \"name\"}}` or `{{\"$?\": \"name\"}}` and stand alone"
        )),
    }
}

/// Writes a node at once if nothing in it depends on parameters.
fn fold(node: Node) -> Node {
    let is_fixed = match &node {
        Node::Object(members) => members
            .iter()
            .all(|(_, node)| matches!(node, Node::Fixed(_))),
        Node::List(nodes) => nodes.iter().all(|node| matches!(node, Node::Fixed(_))),
        _ => false,
    };
    let mut text = Vec::new();
    if is_fixed && write(&node, &Map::new(), &mut text).is_ok() {
        return Node::Fixed(text.into());
    }
    node
}

fn write(node: &Node, params: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), AdapterError> {
    match node {
        Node::Fixed(text) => out.extend_from_slice(text),
        Node::Object(members) => {
            let shown = members.iter().filter(|(_, node)| is_shown(node, params));
            out.push(b'{');
            for (position, (label, node)) in shown.enumerate() {
                separate(position, out);
                out.extend_from_slice(label);
                write(node, params, out)?;
            }
            out.push(b'}');
        }
        Node::List(nodes) => {
            let shown = nodes.iter().filter(|node| is_shown(node, params));
            out.push(b'[');
            for (position, node) in shown.enumerate() {
                separate(position, out);
                write(node, params, out)?;
            }
            out.push(b']');
        }
        Node::Param(name) | Node::Optional(name) => write_param(name, params, out)?,
    }
    Ok(())
}

fn separate(position: usize, out: &mut Vec<u8>) {
    if position > 0 {
        out.push(b',');
    }
}

fn present<'a>(name: &str, params: &'a Map<String, Value>) -> Option<&'a Value> {
    params.get(name).filter(|value| !value.is_null())
}

fn is_shown(node: &Node, params: &Map<String, Value>) -> bool {
    match node {
        Node::Optional(name) => present(name, params).is_some(),
        _ => true,
    }
}

fn write_param(
    name: &str,
    params: &Map<String, Value>,
    out: &mut Vec<u8>,
) -> Result<(), AdapterError> {
    let missing = || AdapterError::MissingParam {
        name: name.to_owned(),
    };
    let value = present(name, params).ok_or_else(missing)?;
    serde_json::to_writer(out, value).map_err(|error| AdapterError::Invalid {
        field: name.to_owned(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Node, Template};
    use crate::adapter::AdapterError;
    use serde_json::{Value, json};

    fn template(value: Value) -> Template {
        serde_json::from_value(value).unwrap()
    }

    fn render(template: &Template, params: Value) -> Result<Value, AdapterError> {
        let Value::Object(params) = params else {
            panic!("params must be an object")
        };
        let mut out = Vec::new();
        template.render(&params, &mut out)?;
        Ok(serde_json::from_slice(&out).unwrap())
    }

    #[test]
    fn test_parameters_fill_their_places() {
        let body = template(json!({
            "prompt": {"$": "prompt"}, "n_predict": {"$": "max_tokens"}, "stream": true,
            "stop": {"$?": "stop"}, "nested": {"list": [1, {"$?": "seed"}, {"$": "prompt"}]}
        }));
        let params = json!({"prompt": "say \"é\"\n", "max_tokens": 3, "seed": null});
        assert_eq!(
            render(&body, params).unwrap(),
            json!({"prompt": "say \"é\"\n", "n_predict": 3, "stream": true, "nested": {"list": [1, "say \"é\"\n"]}})
        );
        let params =
            json!({"prompt": "p", "max_tokens": 3, "seed": 7, "stop": ["a", "b"], "unused": 1});
        assert_eq!(
            render(&body, params).unwrap(),
            json!({"prompt": "p", "n_predict": 3, "stream": true, "stop": ["a", "b"], "nested": {"list": [1, 7, "p"]}})
        );
    }

    #[test]
    fn test_all_optional_members_may_be_missing() {
        let body = template(json!({"a": {"$?": "a"}, "b": {"$?": "b"}}));
        assert_eq!(render(&body, json!({})).unwrap(), json!({}));
        assert_eq!(render(&body, json!({"b": 1})).unwrap(), json!({"b": 1}));
    }

    #[test]
    fn test_a_missing_parameter_is_named() {
        let body = template(json!({"prompt": {"$": "prompt"}}));
        for params in [json!({}), json!({"prompt": null})] {
            let error = render(&body, params).unwrap_err();
            assert_eq!(
                error,
                AdapterError::MissingParam {
                    name: "prompt".to_owned()
                }
            );
            assert!(error.to_string().contains("`prompt`"));
        }
    }

    #[test]
    fn test_a_parameter_is_never_read_as_a_template() {
        let body = template(json!({"prompt": {"$": "prompt"}}));
        let params = json!({"prompt": {"$": "secret"}, "secret": 1});
        assert_eq!(
            render(&body, params).unwrap(),
            json!({"prompt": {"$": "secret"}})
        );
    }

    #[test]
    fn test_wrong_marks_are_refused() {
        for document in [
            json!({"a": {"$": 1}}),
            json!({"a": {"$": "x", "b": 1}}),
            json!({"a": {"$x": "x"}}),
            json!({"$?": "body"}),
        ] {
            assert!(
                serde_json::from_value::<Template>(document.clone()).is_err(),
                "{document}"
            );
        }
    }

    #[test]
    fn test_what_has_no_parameters_is_one_piece_of_text() {
        let Template(Node::Fixed(text)) = template(json!({"b": [1, {"a": null}], "a": 1.0})) else {
            panic!("not folded");
        };
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            json!({"a": 1.0, "b": [1, {"a": null}]})
        );
    }
}
