//! What once went wrong in the daemon: durability, cancels, resumes, recovery, shutdown. Each story failed before its fix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchqueue_server::admission::{Submission, Submitted};
use orchqueue_server::config::Retention;
use orchqueue_server::daemon::{Daemon, Owner};
use orchqueue_server::http::stream::Reader;
use orchqueue_server::journal::{Journal, Key, Kind, Record};
use orchqueue_server::task::{Door, Task};
use orchqueue_server::transcript::Terminal;
use serde_json::{Value, json};

fn temp() -> PathBuf {
    let mut name = [0u8; 8];
    getrandom::fill(&mut name).unwrap();
    std::env::temp_dir().join(format!("orchqueue-regressions-{}.db", hex::encode(name)))
}

/// One thread per connection; `answer` writes what it wants after the request was read.
fn engine(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> String {
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

fn owner(path: &PathBuf, grace_ms: u64) -> Owner {
    let config = json!({
        "server": {"host": "127.0.0.1", "port": 0, "grace_ms": grace_ms},
        "journal": {"path": path}, "retention": {"hours": 24.0, "max_mb": 1024},
        "classes": [{"name": "interactive", "weight": 1, "capacity": 100_000, "full_policy": "reject"}],
        "session": {"ttl_ms": 600_000, "max_turns": 8}, "attempts": {"max": 3, "reclaim_ms": 1000},
        "version": "0", "log_tasks": false});
    Owner::new(&config.to_string()).unwrap()
}

fn pool(d: &Arc<Daemon>, url: Option<&str>, slots: u32, idle_ms: u64) {
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

fn submission(body: &Value, door: Door) -> Submission {
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

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn submit(d: &Arc<Daemon>, body: &Value, door: Door) -> Result<Arc<Task>, String> {
    match d.submit(submission(body, door)).await {
        Ok(Submitted::New(t, _) | Submitted::Existing(t)) => Ok(t),
        Err(r) => Err(format!("{}: {}", r.body.code.as_str(), r.body.message)),
    }
}

fn wait_end(t: &Task, limit: Duration) -> Option<Terminal> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(x) = t.transcript.terminal() {
            return Some(x);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

const ID: &str = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11";

fn lock_db(path: &PathBuf) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

#[test]
fn trim_goes_past_an_open_record() {
    let path = temp();
    let journal = Journal::open(
        &path,
        Retention {
            hours: 1.0,
            max_mb: 1024,
        },
    )
    .unwrap();
    let rec = |n: u32, kind| Record {
        key: Key {
            tenant: "d".into(),
            id: u128::from(n).to_be_bytes(),
        },
        kind,
        at_ms: 1,
        data: "{}".into(),
    };
    journal.append(rec(0, Kind::Admitted));
    for n in 1..=30_000 {
        journal.append(rec(n, Kind::Admitted));
        journal.append(rec(n, Kind::Ended));
    }
    rt().block_on(journal.barrier()).unwrap();
    let mut took = Vec::new();
    let dropped: Vec<usize> = (0..20)
        .map(|_| {
            let b = Instant::now();
            let n = journal.trim(i64::MAX, u64::MAX / 2);
            took.push(b.elapsed());
            n
        })
        .collect();
    let left = journal.read(0, 100_000).unwrap().len();
    journal.close();
    assert!(left <= 1, "{left} records past retention are never trimmed");
}

#[test]
fn a_second_submission_of_one_id_is_not_told_202_before_it_is_durable() {
    let path = temp();
    let o = owner(&path, 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    let hold = lock_db(&path);
    let rt = rt();
    let body = json!({"task_id": ID, "prompt": "x"});
    let (d1, b1) = (Arc::clone(&d), body.clone());
    let first = rt.spawn(async move { submit(&d1, &b1, Door::Queued).await.map(|_| ()) });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!first.is_finished());
    let second = rt.block_on(async {
        tokio::time::timeout(Duration::from_secs(1), submit(&d, &body, Door::Queued)).await
    });
    let accepted = matches!(second, Ok(Ok(_)));
    let durable = d
        .journal
        .task(&Key {
            tenant: "default".into(),
            id: orchqueue_wire::request::parse_uuid(ID).unwrap(),
        })
        .unwrap()
        .is_some();
    drop(hold);
    assert!(
        !accepted || durable,
        "202 for a task of which nothing is on disk"
    );
}

#[test]
fn a_failed_commit_does_not_burn_the_id() {
    let path = temp();
    let o = owner(&path, 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    let hold = lock_db(&path);
    let rt = rt();
    let body = json!({"task_id": ID, "prompt": "x"});
    let first = rt.block_on(submit(&d, &body, Door::Queued)).map(|_| ());
    drop(hold);
    let again = rt.block_on(submit(&d, &body, Door::Queued));
    let ended = again.as_ref().ok().and_then(|t| t.transcript.terminal());
    assert!(
        again.is_ok() && ended.is_none(),
        "told to send it again, then 202 for a canceled task"
    );
}

#[test]
fn a_second_shutdown_shortens_the_drain() {
    let o = Arc::new(owner(&temp(), 1000));
    pool(&o.daemon, None, 1, 5000);
    rt().block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    let begun = Instant::now();
    let o2 = Arc::clone(&o);
    let first = std::thread::spawn(move || o2.shutdown(Duration::from_secs(6)));
    std::thread::sleep(Duration::from_millis(200));
    o.shutdown(Duration::ZERO);
    first.join().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_stop_during_recovery_loses_no_accepted_task() {
    let path = temp();
    let o = owner(&path, 1000);
    pool(&o.daemon, None, 1, 5000);
    let d = Arc::clone(&o.daemon);
    rt().block_on(async {
        let mut all = Vec::new();
        for n in 0..5000u32 {
            let d = Arc::clone(&d);
            all.push(tokio::spawn(async move {
                submit(&d, &json!({"prompt": format!("x{n}")}), Door::Queued)
                    .await
                    .map(|_| ())
            }));
        }
        for t in all {
            t.await.unwrap().unwrap();
        }
    });
    o.shutdown(Duration::ZERO);
    drop(d);
    drop(o);
    let o = Arc::new(owner(&path, 1000));
    assert_eq!(o.daemon.journal.open_tasks().unwrap().len(), 5000);
    let o2 = Arc::clone(&o);
    // As the composition root does: keys are handed over in one thread while a signal shuts down in another.
    let stop = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(15));
        o2.shutdown(Duration::from_millis(500))
    });
    pool(&o.daemon, None, 1, 5000);
    stop.join().unwrap();
    drop(o);
    let journal = Journal::open(
        &path,
        Retention {
            hours: 24.0,
            max_mb: 1024,
        },
    )
    .unwrap();
    let open = journal.open_tasks().unwrap().len();
    journal.close();
    assert_eq!(
        open, 5000,
        "accepted tasks were ended for good by a restart"
    );
}

#[test]
fn the_grace_time_begins_anew_with_each_reader() {
    let url = engine(|s| {
        for _ in 0..100 {
            if s.write_all(b"data: {\"content\":\"a\"}\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let o = owner(&temp(), 1000);
    pool(&o.daemon, Some(&url), 1, 5000);
    let rt = rt();
    let t = rt
        .block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::OneTrip))
        .unwrap();
    let reader = || Reader::new(Arc::clone(&o.daemon), Arc::clone(&t));
    drop(reader());
    let second = reader();
    std::thread::sleep(Duration::from_millis(900));
    drop(second);
    std::thread::sleep(Duration::from_millis(400));
    assert!(
        t.transcript.terminal().is_none(),
        "canceled 100 ms after the last reader left, grace_ms is 1000"
    );
}

#[test]
fn a_readmission_is_recorded_after_the_end_it_follows() {
    let big = "y".repeat(200_000);
    let url = engine(move |s| {
        for _ in 0..60 {
            let _ = s.write_all(format!("data: {{\"content\":\"{big}\"}}\n\n").as_bytes());
        }
    });
    let path = temp();
    let o = owner(&path, 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, Some(&url), 1, 5000);
    let rt = rt();
    let body = json!({"task_id": ID, "prompt": "x"});
    let t = rt.block_on(submit(&d, &body, Door::Queued)).unwrap();
    while t.transcript.terminal().is_none() {
        std::hint::spin_loop();
    }
    let again = rt.block_on(submit(&d, &body, Door::Queued)).unwrap();
    assert_ne!(again.no, t.no);
    // The replica is suspect: the task waits, open, and was answered with 202.
    rt.block_on(d.journal.barrier()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    rt.block_on(d.journal.barrier()).unwrap();
    let kinds: Vec<_> = d
        .journal
        .read(0, 100)
        .unwrap()
        .iter()
        .map(|r| r.record.kind)
        .collect();
    let open = d.journal.open_tasks().unwrap().len();
    assert!(
        open == 1,
        "a task answered with 202 would not be taken up after kill -9: {kinds:?}"
    );
}

#[test]
fn after_any_cancel_the_stream_has_ended() {
    let url = engine(|s| {
        for _ in 0..100_000 {
            if s.write_all(b"data: {\"content\":\"a\"}\n\n").is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    });
    let o = owner(&temp(), 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, Some(&url), 64, 5000);
    let rt = rt();
    let (mut bad, mut late) = (0, 0);
    for _ in 0..400 {
        let t = rt
            .block_on(submit(&d, &json!({"prompt": "x"}), Door::OneTrip))
            .unwrap();
        while t.transcript.k() == 0 {
            std::hint::spin_loop();
        }
        let go = Arc::new(std::sync::Barrier::new(2));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (d, t, go) = (Arc::clone(&d), Arc::clone(&t), Arc::clone(&go));
                let handle = rt.handle().clone();
                std::thread::spawn(move || {
                    go.wait();
                    handle.block_on(d.cancel(&t));
                    let k = t.transcript.k();
                    let open = t.transcript.terminal().is_none();
                    (open, k, t)
                })
            })
            .collect();
        let got: Vec<_> = threads.into_iter().map(|h| h.join().unwrap()).collect();
        for (open, k, t) in got {
            bad += u32::from(open);
            late += u32::from(t.transcript.k() > k);
        }
    }
    assert_eq!((bad, late), (0, 0));
}

#[test]
fn metrics_take_no_label_from_a_client() {
    let o = owner(&temp(), 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 300);
    let rt = rt();
    for n in 0..1000 {
        let _ = rt.block_on(submit(
            &d,
            &json!({"prompt": "x", "engine": format!("evil{n}")}),
            Door::Queued,
        ));
    }
    let series = d.metrics_view()["counters"].as_array().unwrap().len();
    assert!(series < 20, "{series} series");
}

#[test]
fn a_resumed_reader_hears_the_real_end() {
    use http_body_util::BodyExt;
    use orchqueue_server::http::stream::StreamBody;
    let o = owner(&temp(), 1000);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 300);
    let rt = rt();
    let t = rt
        .block_on(submit(&d, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    let text = rt.block_on(async {
        let reader = Reader::new(Arc::clone(&d), Arc::clone(&t));
        let id = "100-0123456789abcdef".parse().unwrap();
        let mut body = StreamBody::orchqueue(
            reader,
            orchqueue_server::transcript::Cursor::default(),
            Some(id),
            Some(100),
            orchqueue_core::Forecast::default(),
        );
        let mut out = body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .to_vec();
        d.cancel(&t).await;
        while let Some(f) = body.frame().await {
            out.extend_from_slice(&f.unwrap().into_data().unwrap());
        }
        String::from_utf8(out).unwrap()
    });
    assert!(
        text.contains("CANCELED"),
        "the client is told that determinism was broken"
    );
}
#[test]
fn comments_are_no_progress() {
    let url = engine(|s| {
        let _ = s.write_all(b"data: {\"content\":\"a\"}\n\n");
        for _ in 0..100 {
            if s.write_all(b": ping\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let o = owner(&temp(), 1000);
    o.start().unwrap();
    pool(&o.daemon, Some(&url), 1, 500);
    let t = rt()
        .block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    assert!(
        wait_end(&t, Duration::from_secs(5)).is_some(),
        "idle_ms 500, no token for 5 s, still running"
    );
}

#[test]
fn control_silence_is_no_progress() {
    let url = engine(|s| {
        let _ = s.write_all(b"data: {\"content\":\"a\"}\n\n");
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let o = owner(&temp(), 1000);
    o.start().unwrap();
    pool(&o.daemon, Some(&url), 1, 500);
    let t = rt()
        .block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    assert!(
        wait_end(&t, Duration::from_secs(5)).is_some(),
        "idle_ms 500, no token for 5 s, still running"
    );
}

#[test]
fn a_timed_out_attempt_is_not_recorded_as_running() {
    let url = engine(|s| {
        let _ = s.write_all(b"data: {\"content\":\"a\"}\n\n");
        std::thread::sleep(Duration::from_secs(5));
    });
    let o = owner(&temp(), 1000);
    let d = Arc::clone(&o.daemon);
    o.start().unwrap();
    pool(&d, Some(&url), 1, 300);
    let rt = rt();
    let t = rt
        .block_on(submit(&d, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    println!("{:?}", wait_end(&t, Duration::from_secs(4)));
    std::thread::sleep(Duration::from_millis(100));
    rt.block_on(d.journal.barrier()).unwrap();
    let ended = d.journal.task(&t.key).unwrap().unwrap().1.unwrap();
    let doc: Value = serde_json::from_str(&ended.record.data).unwrap();
    assert_ne!(
        doc["attempts"][0]["outcome"], "running",
        "{}",
        doc["attempts"]
    );
}

#[test]
fn recovery_waits_for_what_a_starting_pool_has_not_told_yet() {
    let path = temp();
    let o = owner(&path, 1000);
    pool(&o.daemon, None, 1, 5000);
    rt().block_on(submit(
        &o.daemon,
        &json!({"prompt": "x", "model_ref": "m"}),
        Door::Queued,
    ))
    .unwrap();
    o.shutdown(Duration::ZERO);
    drop(o);
    let o = owner(&path, 1000);
    let adapter = json!({"engine": "fake", "routes": {"completion": {"method": "POST", "path": "/c", "headers": {},
        "body": {"prompt": {"$": "prompt"}},
        "grammar": {"framing": "sse", "text": {"text": ["/content"]}, "end": {"pointer": "/stop", "equals": true}}}}});
    // What pools/pool.py declares for an attached pool without `model` before its replica was probed.
    o.daemon.apply(&json!({"op": "pool_set", "pool": "p", "engine": "fake", "models": [], "ctx": 4_294_967_295u32, "workloads": ["completion"],
        "determinism": "best_effort", "timeouts": {"first_token_ms": 5000, "idle_ms": 5000, "wall_ms": 60_000}, "state": "starting", "adapter": adapter}).to_string()).unwrap();
    o.daemon
        .apply(r#"{"op": "keys_set", "pepper_hex": "00", "keys": []}"#)
        .unwrap();
    rt().block_on(o.daemon.journal.barrier()).unwrap();
    let open = o.daemon.journal.open_tasks().unwrap().len();
    println!(
        "{:?}",
        o.daemon
            .journal
            .read(0, 10)
            .unwrap()
            .last()
            .map(|r| r.record.data.clone())
    );
    assert_eq!(open, 1, "an accepted task was ended for good by a restart");
}

#[test]
fn a_202_is_kept_although_a_stream_had_asked_first() {
    let url = engine(|s| {
        for _ in 0..100 {
            if s.write_all(b"data: {\"content\":\"a\"}\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let o = owner(&temp(), 300);
    let d = Arc::clone(&o.daemon);
    pool(&d, Some(&url), 1, 5000);
    let rt = rt();
    let body = json!({"task_id": ID, "prompt": "x"});
    let t = rt.block_on(submit(&d, &body, Door::OneTrip)).unwrap();
    drop(Reader::new(Arc::clone(&d), Arc::clone(&t)));
    let same = rt.block_on(submit(&d, &body, Door::Queued)).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    assert!(
        same.transcript.terminal().is_none(),
        "{:?}",
        same.transcript.terminal()
    );
}

#[test]
fn a_recovered_one_trip_task_without_readers_ends_after_the_grace_time() {
    let url = engine(|s| {
        for _ in 0..100 {
            if s.write_all(b"data: {\"content\":\"a\"}\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let path = temp();
    let o = owner(&path, 300);
    pool(&o.daemon, None, 1, 5000);
    rt().block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::OpenAi))
        .ok();
    rt().block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::OneTrip))
        .unwrap();
    o.shutdown(Duration::ZERO);
    drop(o);
    let o = owner(&path, 300);
    pool(&o.daemon, Some(&url), 8, 5000);
    std::thread::sleep(Duration::from_millis(1500));
    let live = o
        .daemon
        .tasks
        .all()
        .iter()
        .filter(|t| t.transcript.terminal().is_none())
        .count();
    assert_eq!(live, 0, "decoding for nobody");
}

#[test]
fn a_lookup_of_old_tasks_does_not_hold_up_the_streams() {
    // The fold reads under the mutex that every submission with an id takes on a front thread.
    let path = temp();
    let o = owner(&path, 300);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    for n in 0..400u32 {
        d.journal.append(Record {
            key: Key {
                tenant: "z".into(),
                id: u128::from(n).to_be_bytes(),
            },
            kind: Kind::Ended,
            at_ms: 1,
            data: "y".repeat(1_000_000),
        });
    }
    let rt = rt();
    rt.block_on(d.journal.barrier()).unwrap();
    let d2 = Arc::clone(&d);
    let fold = std::thread::spawn(move || {
        let b = Instant::now();
        let n = d2.journal.read(0, 500).unwrap().len();
        (n, b.elapsed())
    });
    std::thread::sleep(Duration::from_millis(5));
    let b = Instant::now();
    rt.block_on(async {
        submit(&d, &json!({"prompt": "x", "task_id": ID}), Door::OneTrip)
            .await
            .map(|_| ())
    })
    .unwrap();
    let took = b.elapsed();
    assert!(took < Duration::from_millis(20));
}
#[test]
fn a_replica_that_gets_ready_after_the_shutdown_hangs_nobody() {
    let url = engine(|s| {
        let _ = s.write_all(b"data: {\"content\":\"a\",\"stop\":true}\n\n");
    });
    let o = owner(&temp(), 300);
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    rt().block_on(submit(&d, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    o.shutdown(Duration::ZERO);
    let d2 = Arc::clone(&d);
    let late = std::thread::spawn(move || {
        d2.apply(&json!({"op": "replica_set", "pool": "p", "replica": "r", "url": url, "slots": 1, "reproducible": false, "engine_version": "1", "model_digest": "x", "identity": {"engine": "fake"}}).to_string()).unwrap();
        d2.apply(r#"{"op": "replica_ready", "replica": "r"}"#)
            .unwrap();
    });
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until && !late.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        late.is_finished(),
        "deadlock: the scheduler's lock is taken twice by one thread"
    );
}

#[test]
fn a_view_of_a_canceled_task_is_stable() {
    let url = engine(|s| {
        for _ in 0..100 {
            if s.write_all(b"data: {\"content\":\"a\"}\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let o = owner(&temp(), 300);
    o.start().unwrap();
    let d = Arc::clone(&o.daemon);
    pool(&d, Some(&url), 1, 5000);
    let rt = rt();
    let t = rt
        .block_on(submit(&d, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    while t.transcript.k() == 0 {
        std::hint::spin_loop();
    }
    rt.block_on(d.cancel(&t));
    std::thread::sleep(Duration::from_millis(200));
    let view = d.task_view(&t)["attempts"][0]["outcome"].clone();
    rt.block_on(d.journal.barrier()).unwrap();
    let doc: Value = serde_json::from_str(
        &d.journal
            .task(&t.key)
            .unwrap()
            .unwrap()
            .1
            .unwrap()
            .record
            .data,
    )
    .unwrap();
    assert_eq!(view, doc["attempts"][0]["outcome"]);
}

#[test]
fn a_resubmission_beside_a_lookup_is_no_conflict() {
    let url = engine(|_| {});
    let o = owner(&temp(), 300);
    o.start().unwrap();
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    let _ = url;
    let rt = rt();
    // A retriable end in the journal, nothing in memory: as after a restart.
    let key = Key {
        tenant: "default".into(),
        id: orchqueue_wire::request::parse_uuid(ID).unwrap(),
    };
    let mut conflicts = 0;
    let body = json!({"task_id": ID, "prompt": "x"});
    for _ in 0..300 {
        for t in d.tasks.all() {
            rt.block_on(d.cancel(&t));
            d.tasks.remove(&t);
        }
        d.journal.append(Record { key: key.clone(), kind: Kind::Admitted, at_ms: 1, data: json!({"door": "queued", "correlation_id": "c", "priority": "interactive", "body": body}).to_string() });
        d.journal.append(Record { key: key.clone(), kind: Kind::Ended, at_ms: 2, data: json!({"segments": [], "end": null, "error": {"code": "WORKER_RESET", "message": "m", "retriable": true}}).to_string() });
        rt.block_on(d.journal.barrier()).unwrap();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (d2, k2, s2) = (Arc::clone(&d), key.clone(), Arc::clone(&stop));
        let handle = rt.handle().clone();
        let looker = std::thread::spawn(move || {
            while !s2.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = handle.block_on(d2.find(&k2));
            }
        });
        if let Err(e) = rt.block_on(submit(&d, &body, Door::OneTrip)) {
            if e.contains("CONFLICT") {
                conflicts += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        looker.join().unwrap();
    }
    assert_eq!(conflicts, 0, "of 300");
}

#[test]
fn a_busy_engine_in_mid_stream_is_no_divergence_of_a_best_effort_task() {
    let n = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let url = engine(move |s| {
        let k = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let _ = s.write_all(format!("data: {{\"content\":\"answer {k}\"}}\n\n").as_bytes());
        if k == 0 {
            let _ = s.write_all(b"data: {\"error\":{\"code\":503,\"message\":\"preempted\"}}\n\n");
        } else {
            let _ = s.write_all(b"data: {\"content\":\".\",\"stop\":true}\n\n");
        }
    });
    let o = owner(&temp(), 300);
    o.start().unwrap();
    pool(&o.daemon, Some(&url), 1, 5000);
    let t = rt()
        .block_on(submit(&o.daemon, &json!({"prompt": "x"}), Door::Queued))
        .unwrap();
    let end = wait_end(&t, Duration::from_secs(5));
    assert!(matches!(end, Some(Terminal::Error(e)) if e.code.as_str() == "WORKER_RESET"));
}

#[test]
fn many_ended_tasks_in_memory() {
    // A commit that failed counts as settled: memory is given up for ends that are not on disk.
    let path = temp();
    let o = owner(&path, 300);
    o.start().unwrap();
    let d = Arc::clone(&o.daemon);
    pool(&d, None, 1, 5000);
    let rt = rt();
    let t = rt
        .block_on(submit(
            &d,
            &json!({"prompt": "x", "task_id": ID}),
            Door::Queued,
        ))
        .unwrap();
    let hold = lock_db(&path);
    rt.block_on(d.cancel(&t));
    std::thread::sleep(Duration::from_millis(5500)); // the commit fails after busy_timeout
    drop(hold);
    let (backlog, sent, settled) = (d.journal.backlog(), d.journal.sent(), d.journal.settled());
    std::thread::sleep(Duration::from_millis(2500)); // linger is over, the disk is well again, nothing else happens
    let found = rt
        .block_on(d.find(&t.key))
        .unwrap()
        .map(|t| t.transcript.terminal().is_some());
    assert_eq!(
        found,
        Some(true),
        "an ended task is 404 and still open on a healthy disk"
    );
}

fn openai(task: &str) -> (Vec<u8>, orchqueue_wire::request::TaskRequest) {
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

#[test]
fn an_openai_task_is_the_same_task_after_it_left_memory() {
    let url = engine(|s| {
        let _ = s.write_all(b"data: {\"content\":\"a\",\"stop\":true}\n\n");
    });
    let o = owner(&temp(), 300);
    o.start().unwrap();
    let d = Arc::clone(&o.daemon);
    let adapter = json!({"engine": "fake", "routes": {"chat": {"method": "POST", "path": "/c", "headers": {},
        "body": {"messages": {"$": "messages"}},
        "grammar": {"framing": "sse", "text": {"text": ["/content"]}, "end": {"pointer": "/stop", "equals": true}}}}});
    d.apply(&json!({"op": "pool_set", "pool": "p", "engine": "fake", "models": ["m"], "ctx": 100_000, "workloads": ["chat"],
        "determinism": "best_effort", "timeouts": {"first_token_ms": 5000, "idle_ms": 5000, "wall_ms": 60_000}, "state": "ready", "adapter": adapter}).to_string()).unwrap();
    d.apply(&json!({"op": "replica_set", "pool": "p", "replica": "r", "url": url, "slots": 1, "reproducible": false, "engine_version": "1", "model_digest": "x", "identity": {"engine": "fake"}}).to_string()).unwrap();
    d.apply(r#"{"op": "replica_ready", "replica": "r"}"#)
        .unwrap();
    d.apply(r#"{"op": "keys_set", "pepper_hex": "00", "keys": []}"#)
        .unwrap();
    let rt = rt();
    let sub = || {
        let (body, request) = openai(ID);
        let s = Submission {
            tenant: "default".into(),
            request,
            body: body.into(),
            door: Door::OpenAi,
            correlation_id: "c".into(),
            received: d.clock.now(),
            recovered: None,
        };
        rt.block_on(d.submit(s))
    };
    let Ok(Submitted::New(t, _)) = sub() else {
        panic!()
    };
    assert!(wait_end(&t, Duration::from_secs(3)).is_some());
    assert!(
        matches!(sub(), Ok(Submitted::Existing(_))),
        "while it is in memory"
    );
    rt.block_on(d.journal.barrier()).unwrap();
    d.tasks.remove(&t);
    let again = sub();
    assert!(
        matches!(again, Ok(Submitted::Existing(_))),
        "{:?}",
        again.err().map(|e| e.body.message)
    );
}
