//! A reader of a transcript, as the body of an answer.
//!
//! It renders what it has not sent yet into one frame each time the connection can take more; a client that
//! is slow simply gets larger frames. When it is dropped, the task hears that a reader has left.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use orchqueue_core::Forecast;
use orchqueue_wire::digest::EventId;
use orchqueue_wire::encode;
use orchqueue_wire::request::{Level, OnDisconnect};
use serde_json::json;
use tokio::time::{Instant, Sleep};

use super::openai::ChatStream;
use crate::daemon::Daemon;
use crate::task::{Door, Task};
use crate::transcript::{Cursor, ResumeError, Terminal};

/// Text per frame, about: bounds what one reader holds at a time.
const FRAME_BYTES: usize = 32 << 10;
/// How often the `metrics` event comes.
const METRICS: Duration = Duration::from_secs(1);

/// The right to follow a task; dropping it tells the task that a reader has left.
pub struct Reader {
    pub daemon: Arc<Daemon>,
    pub task: Arc<Task>,
    pub number: u64,
}

impl Reader {
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, task: Arc<Task>) -> Self {
        task.reader_came();
        let number = task.transcript.reader();
        Self {
            daemon,
            task,
            number,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.transcript.forget(self.number);
        if self.task.reader_left() && self.task.transcript.terminal().is_none() {
            left_alone(&self.daemon, &self.task);
        }
    }
}

/// Nobody follows a task that still runs: `on_disconnect` decides.
pub(crate) fn left_alone(daemon: &Arc<Daemon>, task: &Arc<Task>) {
    let default = if task.door == Door::Queued {
        OnDisconnect::Keep
    } else {
        OnDisconnect::Cancel
    };
    if task.request.on_disconnect.unwrap_or(default) == OnDisconnect::Keep || task.is_kept() {
        return;
    }
    // The OpenAI client can't come back; ours may, within the grace time.
    let grace = if task.door == Door::OpenAi {
        0
    } else {
        daemon.config.server.grace_ms
    };
    let (daemon, task, arrivals) = (Arc::clone(daemon), Arc::clone(task), task.arrivals());
    let runtime = daemon.runtime.clone();
    runtime.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(grace)) => {}
            () = daemon.stopped.cancelled() => return,
        }
        // Whoever came meanwhile has a timer of his own when he leaves.
        if !task.has_readers() && task.arrivals() == arrivals && !task.is_kept() {
            daemon.cancel(&task).await;
        }
    });
}

/// In whose words the stream is told.
enum View {
    OrchQueue {
        forecast: Forecast,
        resumed_from: Option<u64>,
    },
    OpenAi(Box<ChatStream>),
}

pub struct StreamBody {
    reader: Reader,
    cursor: Cursor,
    /// A place that the transcript has not reached yet.
    pending: Option<EventId>,
    view: View,
    opened: bool,
    done: bool,
    timer: Pin<Box<Sleep>>,
    /// Tokens at the last `metrics` event.
    tokens_then: u32,
}

impl StreamBody {
    /// The OrchQueue v1 stream.
    #[must_use]
    pub fn orchqueue(
        reader: Reader,
        cursor: Cursor,
        pending: Option<EventId>,
        resumed_from: Option<u64>,
        forecast: Forecast,
    ) -> Self {
        Self::new(
            reader,
            cursor,
            pending,
            View::OrchQueue {
                forecast,
                resumed_from,
            },
            METRICS,
        )
    }

    /// The OpenAI view of the same task.
    #[must_use]
    pub fn openai(reader: Reader, chat: ChatStream) -> Self {
        let heartbeat = Duration::from_millis(reader.daemon.config.server.heartbeat_ms);
        Self::new(
            reader,
            Cursor::default(),
            None,
            View::OpenAi(Box::new(chat)),
            heartbeat,
        )
    }

    fn new(
        reader: Reader,
        cursor: Cursor,
        pending: Option<EventId>,
        view: View,
        tick: Duration,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(tick));
        Self {
            reader,
            cursor,
            pending,
            view,
            opened: false,
            done: false,
            timer,
            tokens_then: 0,
        }
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        match &mut self.view {
            View::OrchQueue {
                forecast,
                resumed_from,
            } => {
                let (replica_set, level) = self.reader.daemon.set_and_level(&self.reader.task);
                encode::started(
                    out,
                    &encode::Started {
                        task_id: self.reader.task.id(),
                        queue_position: u64::from(forecast.position),
                        predicted_start_ms: forecast.start_ms,
                        determinism: level,
                        replica_set,
                        resumed_from: *resumed_from,
                    },
                );
            }
            View::OpenAi(chat) => chat.open(out),
        }
        self.opened = true;
    }

    /// True when there is something to follow: a resumed reader has found its place.
    fn find_place(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        let Some(id) = self.pending else {
            return true;
        };
        let transcript = &self.reader.task.transcript;
        let mut located = transcript.locate(id);
        if located == Err(ResumeError::NotYet) {
            // Woken by the next change; an end that came between the two looks is found by the second.
            if transcript.poll_end(cx, self.reader.number).is_none() {
                return false;
            }
            located = transcript.locate(id);
        }
        match located {
            Ok(cursor) => {
                self.cursor = cursor;
                self.pending = None;
                return true;
            }
            Err(ResumeError::NotYet | ResumeError::Complete) => {}
            Err(ResumeError::Mismatch) => {
                encode::error(out, &super::tasks::not_the_beginning(), None)
            }
        }
        self.done = true;
        false
    }

    fn follow(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let Self {
            reader,
            cursor,
            view,
            ..
        } = self;
        let terminal = reader.task.transcript.follow(
            cx,
            reader.number,
            cursor,
            FRAME_BYTES,
            |event| match view {
                View::OrchQueue { .. } => encode::token(
                    out,
                    &encode::Token {
                        text: event.text,
                        i: event.index,
                        channel: event.channel.number(),
                        id: event.id,
                    },
                ),
                View::OpenAi(chat) => chat.token(out, event.text, event.channel),
            },
        );
        let Some((terminal, id)) = terminal else {
            return;
        };
        match (&mut self.view, terminal) {
            (View::OrchQueue { .. }, Terminal::End(end)) => encode::end(out, &*end, id),
            (View::OrchQueue { .. }, Terminal::Error(error)) => {
                encode::error(out, &error, Some(id))
            }
            (View::OpenAi(chat), Terminal::End(end)) => chat.end(out, &end),
            (View::OpenAi(chat), Terminal::Error(error)) => chat.error(out, &error),
        }
        self.done = true;
    }

    fn tick(&mut self, out: &mut Vec<u8>) {
        let reader = &self.reader;
        match &self.view {
            View::OrchQueue { .. } => {
                let tokens = reader
                    .task
                    .tokens_out
                    .load(std::sync::atomic::Ordering::Relaxed);
                let data = json!({
                    "queue_depth": reader.daemon.queue_depth(&reader.task),
                    "kv_warmth": "cold",
                    "on_time_probability": null,
                    "tokens_per_s": tokens.saturating_sub(self.tokens_then),
                });
                self.tokens_then = tokens;
                encode::metrics(out, &data);
                self.timer.as_mut().reset(Instant::now() + METRICS);
            }
            View::OpenAi(_) => {
                out.extend_from_slice(encode::HEARTBEAT);
                let heartbeat = Duration::from_millis(reader.daemon.config.server.heartbeat_ms);
                self.timer.as_mut().reset(Instant::now() + heartbeat);
            }
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        if !this.opened {
            this.open(&mut out);
        }
        if this.find_place(cx, &mut out) {
            this.follow(cx, &mut out);
        }
        while out.is_empty() && this.timer.as_mut().poll(cx).is_ready() {
            this.tick(&mut out);
        }
        if out.is_empty() {
            return if this.done {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl Daemon {
    /// The identity of the set that serves a task and the level that is kept there.
    fn set_and_level(&self, task: &Task) -> (Option<String>, Level) {
        let run = task.run.lock();
        let replica = run.attempts.last().map(|a| Arc::clone(&a.replica));
        let pool = run.pool.as_ref().map(|p| p.no);
        drop(run);
        let set = match replica {
            Some(replica) => Some((Arc::clone(&replica.identity), replica.reproducible)),
            None => pool.and_then(|pool| self.registry.read().set_of(pool)),
        };
        let kept = task.level() == Level::Strict
            && set.as_ref().is_none_or(|(_, reproducible)| *reproducible);
        (
            set.map(|(identity, _)| identity.to_string()),
            if kept {
                Level::Strict
            } else {
                Level::BestEffort
            },
        )
    }

    /// Tasks that wait where this one does.
    fn queue_depth(&self, task: &Task) -> usize {
        let pool = task.run.lock().pool.as_ref().map(|p| p.no);
        pool.map_or(0, |pool| {
            self.dispatch.scheduler.lock().queue_depth(pool, task.class)
        })
    }

    /// Where a task stands now.
    pub(crate) fn forecast(&self, task: &Task) -> Forecast {
        self.dispatch
            .scheduler
            .lock()
            .task(task.no)
            .map(|view| view.forecast)
            .unwrap_or_default()
    }
}
