//! The counters behind `/metrics` (names and labels are a contract: `contracts/metrics.yaml`).
//!
//! Rust counts, Python renders: `Metrics::snapshot` hands every family over as JSON. A series is looked up
//! once (when a task is admitted or an attempt starts) and then counted without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde_json::{Value, json};

/// Label values in the order of the family's label names.
type Labels = Vec<String>;

#[derive(Debug)]
pub struct Family<T> {
    name: &'static str,
    labels: &'static [&'static str],
    series: RwLock<BTreeMap<Labels, Arc<T>>>,
}

impl<T: Default> Family<T> {
    fn new(name: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            labels,
            series: RwLock::new(BTreeMap::new()),
        }
    }

    /// The series with these label values, made on first use.
    pub fn with(&self, values: &[&str]) -> Arc<T> {
        debug_assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        let key: Labels = values.iter().map(|v| (*v).to_owned()).collect();
        if let Some(found) = self.series.read().get(&key) {
            return Arc::clone(found);
        }
        Arc::clone(self.series.write().entry(key).or_default())
    }

    fn each(&self, mut f: impl FnMut(Value, &T) -> Value) -> Vec<Value> {
        let series = self.series.read();
        series
            .iter()
            .map(|(values, series)| {
                let labels: serde_json::Map<String, Value> = self
                    .labels
                    .iter()
                    .zip(values)
                    .map(|(k, v)| ((*k).to_owned(), json!(v)))
                    .collect();
                f(Value::Object(labels), series)
            })
            .collect()
    }
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds in milliseconds; `+Inf` is implied.
const BOUNDS_MS: [u64; 14] = [
    5, 10, 25, 50, 100, 250, 500, 900, 1500, 2500, 5000, 10_000, 30_000, 120_000,
];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe_us(&self, us: u64) {
        let place = BOUNDS_MS.partition_point(|bound| bound * 1000 < us);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn json(&self) -> (Value, f64, u64) {
        let mut seen = 0;
        let buckets: Vec<Value> = BOUNDS_MS
            .iter()
            .zip(&self.buckets)
            .map(|(bound, bucket)| {
                seen += bucket.load(Ordering::Relaxed);
                json!([bound.to_string(), seen])
            })
            .collect();
        let sum_ms = self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0;
        (
            Value::Array(buckets),
            sum_ms,
            self.count.load(Ordering::Relaxed),
        )
    }
}

/// Every family that the daemon exposes, but for the gauges, which are read when asked for.
#[derive(Debug)]
pub struct Metrics {
    pub tasks_enqueued: Family<Counter>,
    pub tasks_started: Family<Counter>,
    pub tasks_canceled: Family<Counter>,
    pub tasks_rejected: Family<Counter>,
    pub tokens_in: Family<Counter>,
    pub tokens_out: Family<Counter>,
    pub tokens_redecoded: Family<Counter>,
    pub failovers: Family<Counter>,
    pub divergences: Family<Counter>,
    pub backpressure: Family<Counter>,
    pub latency_first_token: Family<Histogram>,
    pub latency_decode: Family<Histogram>,
}

const REPLICA: &[&str] = &["engine", "engine_version", "pool_id", "replica_id"];
const POOL: &[&str] = &["engine", "engine_version", "pool_id", "priority"];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            tasks_enqueued: Family::new("tasks_enqueued_total", &["engine", "pool_id", "priority"]),
            tasks_started: Family::new(
                "tasks_started_total",
                &[
                    "engine",
                    "engine_version",
                    "pool_id",
                    "replica_id",
                    "priority",
                ],
            ),
            tasks_canceled: Family::new(
                "tasks_canceled_total",
                &["engine", "pool_id", "priority", "reason"],
            ),
            tasks_rejected: Family::new("tasks_rejected_total", &["reason", "engine"]),
            tokens_in: Family::new("tokens_in_total", REPLICA),
            tokens_out: Family::new("tokens_out_total", REPLICA),
            tokens_redecoded: Family::new("tokens_redecoded_total", REPLICA),
            failovers: Family::new("failovers_total", &["engine", "pool_id"]),
            divergences: Family::new("divergences_total", &["engine", "pool_id"]),
            backpressure: Family::new("admission_backpressure_events_total", &["engine", "policy"]),
            latency_first_token: Family::new("latency_first_token_ms", POOL),
            latency_decode: Family::new("latency_decode_ms", POOL),
        }
    }
}

impl Metrics {
    /// `gauges` are `[name, labels, value]`, read by the caller at this moment.
    #[must_use]
    pub fn snapshot(&self, gauges: Vec<Value>) -> Value {
        let counters: Vec<Value> = [
            &self.tasks_enqueued,
            &self.tasks_started,
            &self.tasks_canceled,
            &self.tasks_rejected,
            &self.tokens_in,
            &self.tokens_out,
            &self.tokens_redecoded,
            &self.failovers,
            &self.divergences,
            &self.backpressure,
        ]
        .into_iter()
        .flat_map(|family| family.each(|labels, c| json!([family.name, labels, c.get()])))
        .collect();
        let histograms: Vec<Value> = [&self.latency_first_token, &self.latency_decode]
            .into_iter()
            .flat_map(|family| {
                family.each(|labels, h| {
                    let (buckets, sum, count) = h.json();
                    json!([family.name, labels, buckets, sum, count])
                })
            })
            .collect();
        json!({"counters": counters, "gauges": gauges, "histograms": histograms})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_counted_under_its_labels() {
        let metrics = Metrics::default();
        metrics
            .tokens_in
            .with(&["llamacpp", "1", "tiny", "tiny-0"])
            .add(3);
        metrics
            .tokens_in
            .with(&["llamacpp", "1", "tiny", "tiny-0"])
            .add(4);
        let snapshot = metrics.snapshot(Vec::new());
        assert_eq!(snapshot["counters"][0][2], 7);
        assert_eq!(snapshot["counters"][0][1]["replica_id"], "tiny-0");
    }

    #[test]
    fn a_histogram_is_cumulative_and_bounds_are_inclusive() {
        let h = Histogram::default();
        for us in [5_000, 5_001, 999_000_000] {
            h.observe_us(us);
        }
        let (buckets, sum, count) = h.json();
        assert_eq!(buckets[0], json!(["5", 1]));
        assert_eq!(buckets[1], json!(["10", 2]));
        assert_eq!(count, 3);
        assert!((sum - 999_010.001).abs() < 1e-6);
    }
}
