//! Small recordings of engines' streams, each with the grammar that reads it, and what reading one gives.
//!
//! The recordings have the shape of what real servers sent (llama.cpp, vLLM, Triton) or what their source says
//! (TGI, tool calls, NDJSON), cut down to a few events.

use std::sync::Arc;

use orchqueue_wire::Channel;
use orchqueue_wire::grammar::Grammar;
use orchqueue_wire::reader::{StreamReader, StreamState, TokenBatch};

/// A stream and the grammar that reads it.
#[derive(Clone, Copy)]
pub struct Recording {
    pub name: &'static str,
    pub grammar: &'static str,
    pub body: &'static str,
}

macro_rules! recordings {
    ($($name:ident: $grammar:literal, $stream:literal;)*) => {
        $(pub const $name: Recording = Recording {
            name: $stream,
            grammar: include_str!(concat!("../fixtures/", $grammar, ".json")),
            body: include_str!(concat!("../fixtures/", $stream)),
        };)*
        /// Every recording.
        pub const ALL: &[Recording] = &[$($name),*];
    };
}

recordings! {
    LLAMACPP_COMPLETION: "llamacpp_completion", "llamacpp_completion.sse";
    LLAMACPP_PROGRESS: "llamacpp_completion", "llamacpp_progress.sse";
    LLAMACPP_SPLIT_CHARACTERS: "llamacpp_completion", "llamacpp_split_characters.sse";
    LLAMACPP_TRUNCATED_CHARACTER: "llamacpp_completion", "llamacpp_truncated_character.sse";
    LLAMACPP_STOP_WORD: "llamacpp_completion", "llamacpp_stop_word.sse";
    LLAMACPP_TWO_PROMPTS: "llamacpp_completion", "llamacpp_two_prompts.sse";
    LLAMACPP_NO_TEXT: "llamacpp_completion", "llamacpp_no_text.sse";
    LLAMACPP_CONTEXT_EXCEEDED: "llamacpp_completion", "llamacpp_context_exceeded.sse";
    LLAMACPP_TERMINATED: "llamacpp_completion", "llamacpp_terminated.sse";
    LLAMACPP_CHAT: "openai_chat", "llamacpp_chat.sse";
    LLAMACPP_V1_COMPLETIONS: "openai_completions", "llamacpp_v1_completions.sse";
    OPENAI_CHAT_TOOLS: "openai_chat", "openai_chat_tools.sse";
    VLLM_COMPLETIONS: "openai_completions", "vllm_completions.sse";
    VLLM_SEVERAL_TOKENS: "openai_completions", "vllm_several_tokens.sse";
    VLLM_ENGINE_DIED: "openai_completions", "vllm_engine_died.sse";
    VLLM_ABORTED: "openai_completions", "vllm_aborted.sse";
    VLLM_DONE_WITHOUT_END: "openai_completions", "vllm_done_without_end.sse";
    TRITON_STREAM: "triton", "triton_stream.sse";
    TRITON_FAILED: "triton", "triton_failed.sse";
    TGI_STREAM: "tgi", "tgi_stream.sse";
    TGI_OVERLOADED: "tgi", "tgi_overloaded.sse";
    LINES: "lines", "lines.ndjson";
}

/// All that came out of one stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    /// One entry per token event.
    pub events: Vec<(Channel, String)>,
    pub ids: Vec<u32>,
    pub tokens_out: u32,
    pub state: StreamState,
}

impl Recording {
    pub fn grammar(self) -> Arc<Grammar> {
        Arc::new(Grammar::parse(self.grammar).unwrap())
    }

    /// Reads the recording in one piece.
    pub fn read(self) -> Reading {
        read(self.grammar(), &[self.body.as_bytes()])
    }
}

/// Reads a body that arrives in these pieces.
pub fn read<P: AsRef<[u8]>>(grammar: Arc<Grammar>, pieces: &[P]) -> Reading {
    let mut reader = StreamReader::new(grammar);
    let mut batch = TokenBatch::default();
    let mut reading = Reading {
        events: Vec::new(),
        ids: Vec::new(),
        tokens_out: 0,
        state: StreamState::Open,
    };
    for piece in pieces {
        _ = reader.push(piece.as_ref(), &mut batch);
        reading.take(&mut batch);
    }
    reading.state = reader.finish(&mut batch);
    reading.take(&mut batch);
    reading.tokens_out = reader.tokens_out();
    reading
}

impl Reading {
    fn take(&mut self, batch: &mut TokenBatch) {
        let mut start = 0;
        for cut in &batch.cuts {
            let end = cut.end as usize;
            let text = batch.text[start..end].to_owned();
            self.events.push((cut.channel, text));
            start = end;
        }
        assert_eq!(
            start,
            batch.text.len(),
            "every byte of text belongs to an event"
        );
        self.ids.extend_from_slice(&batch.ids);
        batch.clear();
    }
}
