//! The adapter document: all that Rust has to know of an engine, as one JSON document.
//!
//! Per workload it holds a route: where the engine's request goes, how its body is made ([`crate::mapping`]) and
//! how its answer reads ([`crate::grammar`]). Documents are written by the Python adapters, so a mistake in one is
//! told to a person who writes an adapter: every refusal names the field and says what it may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::grammar::{Grammar, GrammarDocument};
use crate::mapping::Template;
use crate::vocabulary::Workload;

/// Why an adapter document or a rendering of it was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The document is wrong.
    #[error("`{field}`: {message}")]
    Invalid {
        /// Path of the field, such as `routes.chat.grammar.end`.
        field: String,
        /// What is wrong and what it may be.
        message: String,
    },
    /// The template needs a parameter that the task does not have.
    #[error(
        "the adapter's body template needs the parameter: `{name}`; send it, or make it optional with `$?`"
    )]
    MissingParam {
        /// The parameter's name.
        name: String,
    },
}

/// An engine's protocol.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Name of the engine, such as `llamacpp`.
    pub engine: String,
    /// One route per workload that the engine serves.
    pub routes: BTreeMap<Workload, Route>,
    /// How to see that a slot is free again after a cancel, where the engine can tell.
    pub idle: Option<IdleRule>,
}

/// How one workload goes to the engine and comes back.
#[derive(Clone, Debug)]
pub struct Route {
    /// HTTP method.
    pub method: String,
    /// Path and query, from the slash on.
    pub path: String,
    /// Extra request headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// How the answer reads.
    pub grammar: Arc<Grammar>,
    body: Template,
}

/// After a cancel: ask `path` until it answers `ok_status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdleRule {
    /// Path and query of a cheap `GET`.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// The status that means idle.
    #[serde(default = "ok")]
    pub ok_status: u16,
    /// Wait this long before the first question.
    pub first_after_ms: u64,
    /// Ask again this often.
    pub every_ms: u64,
}

fn ok() -> u16 {
    200
}

impl Adapter {
    /// Reads an adapter document.
    ///
    /// # Errors
    /// [`AdapterError::Invalid`] names the field that is wrong.
    pub fn parse(json: &str) -> Result<Self, AdapterError> {
        let document: AdapterDocument = read_document(json)?;
        let mut routes = BTreeMap::new();
        for (name, route) in document.routes {
            routes.insert(workload(&name)?, Route::compile(route));
        }
        Ok(Self {
            engine: document.engine,
            routes,
            idle: document.idle,
        })
    }

    /// The route of a workload, if the engine serves it.
    #[must_use]
    pub fn route(&self, workload: Workload) -> Option<&Route> {
        self.routes.get(&workload)
    }
}

impl Route {
    fn compile(document: RouteDocument) -> Self {
        Self {
            method: document.method,
            path: document.path,
            headers: document.headers.0,
            grammar: Arc::new(Grammar::compile(document.grammar)),
            body: document.body,
        }
    }

    /// Appends the engine's request body for `params` to `out`.
    ///
    /// # Errors
    /// [`AdapterError::MissingParam`] when the template needs a parameter that is not there.
    pub fn render(
        &self,
        params: &Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), AdapterError> {
        self.body.render(params, out)
    }
}

/// Reads a JSON document and, if it is wrong, says where.
pub(crate) fn read_document<T: DeserializeOwned>(json: &str) -> Result<T, AdapterError> {
    let invalid = |field: String, message: String| AdapterError::Invalid { field, message };
    let value: Value = serde_json::from_str(json)
        .map_err(|error| invalid(".".to_owned(), format!("is not JSON: {error}")))?;
    serde_path_to_error::deserialize(value)
        .map_err(|error| invalid(error.path().to_string(), error.inner().to_string()))
}

fn workload(name: &str) -> Result<Workload, AdapterError> {
    let named = |workload: &Workload| workload.as_str() == name;
    Workload::ALL.into_iter().find(named).ok_or_else(|| {
        let names = Workload::ALL.map(|workload| format!("`{}`", workload.as_str()));
        AdapterError::Invalid {
            field: format!("routes.{name}"),
            message: format!("unknown workload; use one of {}", names.join(", ")),
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdapterDocument {
    engine: String,
    routes: BTreeMap<String, RouteDocument>,
    #[serde(default)]
    idle: Option<IdleRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteDocument {
    #[serde(default = "post", deserialize_with = "method")]
    method: String,
    #[serde(deserialize_with = "path")]
    path: String,
    #[serde(default)]
    headers: Headers,
    body: Template,
    grammar: GrammarDocument,
}

fn post() -> String {
    "POST".to_owned()
}

fn method<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if matches!(text.as_str(), "POST" | "PUT" | "GET") {
        return Ok(text);
    }
    Err(serde::de::Error::custom(format!(
        "must be `POST`, `PUT` or `GET`, but is: `{text}`"
    )))
}

fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Ok(text);
    }
    Err(serde::de::Error::custom(format!(
        "must be a path such as `/completion`, without spaces or a fragment, but is: `{text}`"
    )))
}

/// Request headers, checked so that none can smuggle in a line of its own.
#[derive(Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
struct Headers(Vec<(String, String)>);

impl TryFrom<BTreeMap<String, String>> for Headers {
    type Error = String;

    fn try_from(headers: BTreeMap<String, String>) -> Result<Self, String> {
        let mut checked = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!(
                    "not a header name: `{name}`; use letters, digits and `-`"
                ));
            }
            if !value
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            {
                return Err(format!(
                    "the value of header `{name}` must be printable ASCII on one line"
                ));
            }
            checked.push((name.to_ascii_lowercase(), value));
        }
        Ok(Self(checked))
    }
}

#[cfg(test)]
mod tests {
    use super::{Adapter, AdapterError, IdleRule};
    use crate::vocabulary::Workload;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "engine": "llamacpp",
            "routes": {"completion": {
                "method": "POST", "path": "/completion", "headers": {"X-Trace": "on"},
                "body": {"prompt": {"$": "prompt"}, "stream": true},
                "grammar": {"framing": "sse", "text": {"text": "/content"}, "end": {"pointer": "/stop", "equals": true}}
            }},
            "idle": {"path": "/slots?fail_on_no_slot=1", "first_after_ms": 20, "every_ms": 50}
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut document = document();
        change(&mut document);
        match Adapter::parse(&document.to_string()) {
            Ok(_) => panic!("accepted: {document}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn test_a_route_renders_its_request() {
        let adapter = Adapter::parse(&document().to_string()).unwrap();
        let route = adapter.route(Workload::Completion).unwrap();
        assert_eq!(
            (adapter.engine.as_str(), route.method.as_str()),
            ("llamacpp", "POST")
        );
        assert_eq!(route.headers, [("x-trace".to_owned(), "on".to_owned())]);
        let mut body = b"kept ".to_vec();
        let params = json!({"prompt": "p"});
        route
            .render(params.as_object().unwrap(), &mut body)
            .unwrap();
        assert_eq!(body, br#"kept {"prompt":"p","stream":true}"#);
        assert!(adapter.route(Workload::Chat).is_none());
        let idle = IdleRule {
            path: "/slots?fail_on_no_slot=1".to_owned(),
            ok_status: 200,
            first_after_ms: 20,
            every_ms: 50,
        };
        assert_eq!(adapter.idle, Some(idle));
    }

    #[test]
    fn test_refusals_name_the_field() {
        let route =
            |d: &mut Value, field: &str, value: Value| d["routes"]["completion"][field] = value;
        for (message, field) in [
            (refusal(|d| d["idel"] = json!(1)), "`idel`"),
            (refusal(|d| d["routes"] = json!({"chatter": {}})), "chatter"),
            (
                refusal(|d| route(d, "method", json!("FETCH"))),
                "`routes.completion.method`",
            ),
            (
                refusal(|d| route(d, "path", json!("completion"))),
                "`routes.completion.path`",
            ),
            (
                refusal(|d| route(d, "path", json!("/a b"))),
                "`routes.completion.path`",
            ),
            (
                refusal(|d| route(d, "headers", json!({"x": "a\r\nb: c"}))),
                "`routes.completion.headers`",
            ),
            (
                refusal(|d| route(d, "headers", json!({"x y": "a"}))),
                "`routes.completion.headers`",
            ),
            (
                refusal(|d| route(d, "body", json!({"a": {"$": 1}}))),
                "`routes.completion.body`",
            ),
            (
                refusal(|d| d["routes"]["completion"]["grammar"]["end"] = json!({})),
                "`routes.completion.grammar.end`",
            ),
            (
                refusal(|d| d["idle"] = json!({"path": "x", "first_after_ms": 1, "every_ms": 1})),
                "`idle.path`",
            ),
        ] {
            assert!(
                message.contains(field),
                "`{field}` is missing in: {message}"
            );
        }
    }

    #[test]
    fn test_what_is_not_one_json_document_is_refused() {
        for text in ["", "{", "[]", &format!("{} 1", document())] {
            assert!(
                matches!(Adapter::parse(text), Err(AdapterError::Invalid { .. })),
                "{text}"
            );
        }
    }
}
