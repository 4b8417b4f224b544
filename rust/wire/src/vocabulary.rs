//! The words that both sides of the wire use: what a task asks for, what came out and why it ended.
//!
//! Nothing here knows an engine or the client's protocol. The engine side (`adapter`, `reader`) and the client
//! side (`request`, `encode`, `receipt`) meet in these types.

use serde::{Deserialize, Serialize};

/// What kind of work a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Continue a prompt.
    Completion,
    /// Answer a list of messages.
    Chat,
    /// Turn inputs into vectors.
    Embedding,
    /// Score documents against a query.
    Rerank,
}

impl Workload {
    /// Every workload, in the order of the contract.
    pub const ALL: [Self; 4] = [Self::Completion, Self::Chat, Self::Embedding, Self::Rerank];

    /// The name in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        }
    }
}

/// Which of a task's outputs a piece of text belongs to. The number is part of the output digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// The answer.
    #[default]
    Text = 0,
    /// What the model thinks before it answers.
    Reasoning = 1,
    /// The JSON of a tool call.
    ToolCall = 2,
}

impl Channel {
    /// The number on the wire and in the digest.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Why an engine stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its answer, or a stop word was reached.
    Stop,
    /// The token limit or the end of the context was reached.
    Length,
    /// The model asks for tools.
    ToolCalls,
}

impl FinishReason {
    /// The name in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// Tokens that a task used, as the engine counted them where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub tokens_in: u32,
    /// Tokens decoded.
    pub tokens_out: u32,
    /// Prompt tokens that came from the engine's cache; absent when the engine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_cached: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::{FinishReason, Workload};

    #[test]
    fn test_names_on_the_wire_are_the_names_of_as_str() {
        for workload in Workload::ALL {
            assert_eq!(
                serde_json::to_value(workload).unwrap(),
                workload.as_str(),
                "{workload:?}"
            );
        }
        for reason in [
            FinishReason::Stop,
            FinishReason::Length,
            FinishReason::ToolCalls,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
