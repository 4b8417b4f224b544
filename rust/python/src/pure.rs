//! The pure functions of `orchqueue_wire`, for the client, the tests and the command line.

use orchqueue_server::keys::hash_secret;
use orchqueue_wire::adapter::{Adapter, Route};
use orchqueue_wire::digest::{RunningDigest, request_digest as digest_of};
use orchqueue_wire::errors::Code;
use orchqueue_wire::reader::{StreamReader, StreamState, TokenBatch};
use orchqueue_wire::receipt::{self, ReceiptKey};
use orchqueue_wire::request::{default_seed, parse_task, parse_uuid};
use orchqueue_wire::vocabulary::Workload;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

fn bad(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn object(json: &str) -> PyResult<Map<String, Value>> {
    serde_json::from_str(json).map_err(bad)
}

fn bytes32(hex_text: &str) -> PyResult<[u8; 32]> {
    let bytes = hex::decode(hex_text).map_err(bad)?;
    bytes
        .try_into()
        .map_err(|_| bad("32 bytes in hexadecimal are needed"))
}

fn workload_of(name: &str) -> PyResult<Workload> {
    Workload::ALL
        .into_iter()
        .find(|w| w.as_str() == name)
        .ok_or_else(|| bad(format!("no workload `{name}`")))
}

fn route<'a>(adapter: &'a Adapter, workload: &str) -> PyResult<&'a Route> {
    adapter
        .route(workload_of(workload)?)
        .ok_or_else(|| bad(format!("the adapter has no route for `{workload}`")))
}

#[pyfunction]
pub fn error_registry() -> Vec<(&'static str, u16, bool)> {
    Code::ALL
        .iter()
        .map(|code| (code.as_str(), code.http_status(), code.retriable()))
        .collect()
}

#[pyfunction]
pub fn request_digest(effective_json: &str) -> PyResult<String> {
    Ok(hex::encode(digest_of(&object(effective_json)?)))
}

#[pyfunction]
pub fn task_effective(task_json: &str, task_id: &str) -> PyResult<String> {
    let request = parse_task(task_json.as_bytes()).map_err(bad)?;
    let id = parse_uuid(task_id).ok_or_else(|| bad("`task_id`: not a UUID"))?;
    let seed = request.seed.unwrap_or_else(|| default_seed(&id));
    Ok(Value::Object(request.effective(seed)).to_string())
}

#[pyfunction]
pub fn output_digest(request_digest_hex: &str, output: &[u8]) -> PyResult<String> {
    let mut digest = RunningDigest::new(&bytes32(request_digest_hex)?);
    digest.update(output);
    Ok(hex::encode(digest.read()))
}

#[pyfunction]
pub fn identity_digest(fields_json: &str) -> PyResult<String> {
    Ok(hex::encode(receipt::identity(&object(fields_json)?)))
}

#[pyfunction]
pub fn generate_receipt_key() -> PyResult<(String, String, String)> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(bad)?;
    let key = ReceiptKey::from_secret(&secret);
    Ok((
        key.id().to_owned(),
        hex::encode(secret),
        hex::encode(key.public()),
    ))
}

#[pyfunction]
pub fn sign_receipt(receipt_json: &str, key_id: &str, secret_hex: &str) -> PyResult<String> {
    let key = ReceiptKey::from_secret_hex(secret_hex).map_err(bad)?;
    if key.id() != key_id {
        return Err(bad(format!(
            "`key_id`: `{key_id}` is not the id of this secret, `{}` is",
            key.id()
        )));
    }
    Ok(Value::Object(receipt::sign(&object(receipt_json)?, &key)).to_string())
}

#[pyfunction]
pub fn verify_receipt(receipt_json: &str, public_hex: &str) -> PyResult<bool> {
    Ok(receipt::verify(&object(receipt_json)?, &bytes32(public_hex)?).is_ok())
}

#[pyfunction]
pub fn hash_api_key(pepper_hex: &str, secret: &str) -> PyResult<String> {
    Ok(hex::encode(hash_secret(
        &hex::decode(pepper_hex).map_err(bad)?,
        secret,
    )))
}

#[pyfunction]
pub fn render_request(adapter_json: &str, workload: &str, params_json: &str) -> PyResult<Vec<u8>> {
    let adapter = Adapter::parse(adapter_json).map_err(bad)?;
    let mut out = Vec::new();
    route(&adapter, workload)?
        .render(&object(params_json)?, &mut out)
        .map_err(bad)?;
    Ok(out)
}

#[pyfunction]
pub fn read_stream(adapter_json: &str, workload: &str, chunks: Vec<Vec<u8>>) -> PyResult<String> {
    let adapter = Adapter::parse(adapter_json).map_err(bad)?;
    let mut reader = StreamReader::new(std::sync::Arc::clone(&route(&adapter, workload)?.grammar));
    let mut batch = TokenBatch::default();
    let mut state = StreamState::Open;
    for chunk in &chunks {
        if matches!(state, StreamState::Open) {
            state = reader.push(chunk, &mut batch);
        }
    }
    if matches!(state, StreamState::Open) {
        state = reader.finish(&mut batch);
    }
    Ok(told(&batch, &state).to_string())
}

fn told(batch: &TokenBatch, state: &StreamState) -> Value {
    let mut start = 0;
    let events: Vec<Value> = batch
        .cuts
        .iter()
        .map(|cut| {
            let text = batch.text.get(start..cut.end as usize).unwrap_or("");
            start = cut.end as usize;
            json!([cut.channel.number(), text])
        })
        .collect();
    match state {
        StreamState::Ended(end) => json!({
            "text": batch.text, "events": events,
            "end": {"finish_reason": end.finish_reason, "usage": end.usage, "ids": end.ids},
        }),
        StreamState::Failed(fault) => json!({
            "text": batch.text, "events": events,
            "fault": {"class": fault.class, "message": fault.message},
        }),
        StreamState::Open => json!({"text": batch.text, "events": events}),
    }
}
