//! What was accepted stays accepted: commits that fail, stops in between, records in their order. Each story failed
//! before its fix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use world::*;

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
    for _ in 0..20 {
        journal.trim(i64::MAX, u64::MAX / 2);
    }
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
    assert!(rt.block_on(submit(&d, &body, Door::Queued)).is_err());
    drop(hold);
    let again = rt.block_on(submit(&d, &body, Door::Queued));
    let ended = again.as_ref().ok().and_then(|t| t.transcript.terminal());
    assert!(
        again.is_ok() && ended.is_none(),
        "told to send it again, then 202 for a canceled task"
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
        if let Err(e) = rt.block_on(submit(&d, &body, Door::OneTrip))
            && e.contains("CONFLICT")
        {
            conflicts += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        looker.join().unwrap();
    }
    assert_eq!(conflicts, 0, "of 300");
}

#[test]
fn an_end_that_the_disk_refused_is_written_later() {
    // Memory is given up only for what is on disk, and a refused commit is tried again by itself.
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
