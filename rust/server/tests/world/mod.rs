//! A daemon in this process, an engine that says what it is told, a disk that can be held up.
#![allow(dead_code, unused_imports)]

pub use std::io::{Read, Write};
pub use std::net::{TcpListener, TcpStream};
pub use std::path::PathBuf;
pub use std::sync::Arc;
pub use std::time::{Duration, Instant};

pub use orchqueue_server::admission::{Submission, Submitted};
pub use orchqueue_server::config::Retention;
pub use orchqueue_server::daemon::{Daemon, Owner};
pub use orchqueue_server::http::stream::Reader;
pub use orchqueue_server::journal::{Journal, Key, Kind, Record};
pub use orchqueue_server::task::{Door, Task};
pub use orchqueue_server::transcript::Terminal;
pub use serde_json::{Value, json};

pub fn temp() -> PathBuf {
    let mut name = [0u8; 8];
    getrandom::fill(&mut name).unwrap();
    std::env::temp_dir().join(format!("orchqueue-regressions-{}.db", hex::encode(name)))
}

/// One thread per connection; `answer` writes what it wants after the request was read.
pub fn engine(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut buf = [0u8; 65536];
                loop {
                    let n = stream.read(&mut buf).unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    seen.extend_from_slice(&buf[..n]);
                    let text = String::from_utf8_lossy(&seen).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let len = head
                            .lines()
                            .find_map(|l| {
                                l.to_ascii_lowercase()
                                    .strip_prefix("content-length:")
                                    .map(|v| v.trim().parse::<usize>().unwrap())
                            })
                            .unwrap_or(0);
                        if body.len() >= len {
                            break;
                        }
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
                answer(&mut stream);
            });
        }
    });
    url
}

pub fn owner(path: &PathBuf, grace_ms: u64) -> Owner {
    let config = json!({
        "server": {"host": "127.0.0.1", "port": 0, "grace_ms": grace_ms},
        "journal": {"path": path}, "retention": {"hours": 24.0, "max_mb": 1024},
        "classes": [{"name": "interactive", "weight": 1, "capacity": 100_000, "full_policy": "reject"}],
        "session": {"ttl_ms": 600_000, "max_turns": 8}, "attempts": {"max": 3, "reclaim_ms": 1000},
        "version": "0", "log_tasks": false});
    Owner::new(&config.to_string()).unwrap()
}

pub fn pool(d: &Arc<Daemon>, url: Option<&str>, slots: u32, idle_ms: u64) {
    let adapter = json!({"engine": "fake", "routes": {"completion": {"method": "POST", "path": "/c", "headers": {},
        "body": {"prompt": {"$": "prompt"}},
        "grammar": {"framing": "sse", "text": {"text": ["/content"]}, "end": {"pointer": "/stop", "equals": true}, "error": {"pointer": "/error", "message": ["/error/message"], "code": ["/error/code"]}}}}});
    d.apply(&json!({"op": "pool_set", "pool": "p", "engine": "fake", "models": ["m"], "ctx": 100_000, "workloads": ["completion"],
        "determinism": "best_effort", "timeouts": {"first_token_ms": 5000, "idle_ms": idle_ms, "wall_ms": 60_000}, "state": if url.is_some() {"ready"} else {"starting"},
        "adapter": adapter}).to_string()).unwrap();
    if let Some(url) = url {
        d.apply(&json!({"op": "replica_set", "pool": "p", "replica": "r", "url": url, "slots": slots, "reproducible": false, "engine_version": "1", "model_digest": "x", "identity": {"engine": "fake"}}).to_string()).unwrap();
        d.apply(r#"{"op": "replica_ready", "replica": "r"}"#)
            .unwrap();
    }
    d.apply(r#"{"op": "keys_set", "pepper_hex": "00", "keys": []}"#)
        .unwrap();
}

pub fn submission(body: &Value, door: Door) -> Submission {
    let bytes = body.to_string().into_bytes();
    Submission {
        tenant: "default".into(),
        request: orchqueue_wire::request::parse_task(&bytes).unwrap(),
        body: bytes.into(),
        door,
        correlation_id: "c".into(),
        received: orchqueue_core::Time(
            u64::try_from(
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .as_micros(),
            )
            .unwrap(),
        ),
        recovered: None,
    }
}

pub fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

pub async fn submit(d: &Arc<Daemon>, body: &Value, door: Door) -> Result<Arc<Task>, String> {
    match d.submit(submission(body, door)).await {
        Ok(Submitted::New(t, _) | Submitted::Existing(t)) => Ok(t),
        Err(r) => Err(format!("{}: {}", r.body.code.as_str(), r.body.message)),
    }
}

pub fn wait_end(t: &Task, limit: Duration) -> Option<Terminal> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(x) = t.transcript.terminal() {
            return Some(x);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

pub const ID: &str = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11";

pub fn lock_db(path: &PathBuf) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

pub fn openai(task: &str) -> (Vec<u8>, orchqueue_wire::request::TaskRequest) {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]})
        .to_string()
        .into_bytes();
    let (mut r, _) = orchqueue_wire::openai::parse_chat(&body).unwrap();
    for (k, v) in [
        ("x-orchqueue-task-id", task),
        ("x-orchqueue-determinism", "best_effort"),
        ("x-orchqueue-deadline-ms", "600000"),
    ] {
        orchqueue_wire::openai::apply_header(&mut r, k, v).unwrap();
    }
    (body, r)
}
