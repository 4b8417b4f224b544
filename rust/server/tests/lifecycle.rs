//! Cancels, timeouts, readers that come and go, shutdowns. Each story failed before its fix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use world::*;

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
