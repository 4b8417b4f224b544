"""The Rust core of orchqueue: the daemon, and the pure functions that its clients and tests need.

Users import `orchqueue`, never `orchqueue._core`. Documents cross the border as JSON text; both sides refuse
unknown keys. Calls that can block run without the GIL.
"""

from typing import final

__all__ = [
    "Daemon",
    "error_registry",
    "generate_receipt_key",
    "hash_api_key",
    "identity_digest",
    "output_digest",
    "read_stream",
    "render_request",
    "request_digest",
    "sign_receipt",
    "task_effective",
    "verify_receipt",
]

@final
class Daemon:
    """Everything that serves: front door, scheduler, transcripts, journal. Two may live in one process."""

    def __new__(cls, config_json: str) -> Daemon:
        """Open the journal; nothing listens yet.

        Args:
            config_json: the runtime document (`orchqueue.config.runtime_document`).

        Raises:
            ValueError: the document or a receipt key is not valid; the message names the field.
            OSError: the journal can't be opened.
        """

    def start(self) -> str:
        """Take up the tasks that an earlier life had accepted, then listen. Returns `host:port`.

        Raises:
            OSError: the address is taken, or the journal can't be read.
        """

    def apply(self, command_json: str) -> str:
        """Perform one command of the control plane; returns a JSON object.

        `op` is one of `keys_set`, `pool_set`, `pool_state`, `pool_remove`, `replica_set`, `replica_ready`,
        `replica_unready`, `replica_remove`.

        Raises:
            ValueError: the command was refused; nothing was changed.
        """

    def next_event(self, timeout_ms: int) -> str | None:
        """Wait for what needs the control plane: `{"event": "probe", "replica": …}`, `{"event": "stopped"}`.

        Returns `None` after `timeout_ms` milliseconds.
        """

    def snapshot(self) -> str:
        """Pools, replicas and queues at this moment, as a JSON object."""

    def metrics(self) -> str:
        """Every family of the metrics contract: `{"counters": [[name, labels, value]…], "gauges": […],
        "histograms": [[name, labels, [[le, cumulative]…], sum, count]…]}`."""

    def journal_read(self, after_seq: int, limit: int) -> list[tuple[int, str, str, str, int, str]]:
        """Journal records after a sequence number, oldest first: sequence number, tenant, task id, kind
        (`admitted`, `started`, `ended`), Unix time in milliseconds, data as JSON.

        Raises:
            OSError: the journal can't be read.
        """

    def journal_trim(self, folded_seq: int) -> int:
        """Drop records up to `folded_seq` that are past retention; returns how many."""

    def shutdown(self, deadline_ms: int) -> None:
        """Stop admitting, let running tasks finish for `deadline_ms`, keep the rest for the next life, close.

        Safe to call twice.
        """

def error_registry() -> list[tuple[str, int, bool]]:
    """Every error code with its HTTP status and whether it is retriable by default (ORCH-2006)."""

def request_digest(effective_json: str) -> str:
    """R: sha256 over the canonical JSON (RFC 8785) of an effective request, in hexadecimal.

    Raises:
        ValueError: not a JSON object.
    """

def task_effective(task_json: str, task_id: str) -> str:
    """What the request digest covers: the task after profile defaults, with its seed, as JSON.

    Raises:
        ValueError: the task or the id is not valid.
    """

def output_digest(request_digest_hex: str, output: bytes) -> str:
    """D: sha256 over R and the output bytes, in hexadecimal.

    Raises:
        ValueError: the request digest is not 32 bytes in hexadecimal.
    """

def identity_digest(fields_json: str) -> str:
    """The identity of a replica set: sha256 over the canonical JSON of its fields, in hexadecimal.

    Raises:
        ValueError: not a JSON object.
    """

def generate_receipt_key() -> tuple[str, str, str]:
    """A new Ed25519 key: key id, secret and public half in hexadecimal."""

def sign_receipt(receipt_json: str, key_id: str, secret_hex: str) -> str:
    """The receipt with `key_id` and `signature`, as JSON.

    Raises:
        ValueError: not a receipt, or the id does not belong to the secret.
    """

def verify_receipt(receipt_json: str, public_hex: str) -> bool:
    """Whether the signature of a receipt holds under this public key.

    Raises:
        ValueError: not a JSON object, or not a key.
    """

def hash_api_key(pepper_hex: str, secret: str) -> str:
    """HMAC-SHA256 of an API key's secret under the pepper, in hexadecimal.

    Raises:
        ValueError: the pepper is not hexadecimal.
    """

def render_request(adapter_json: str, workload: str, params_json: str) -> bytes:
    """The body that an adapter's route sends for these parameters.

    Raises:
        ValueError: the adapter is not valid, has no such route, or a parameter is missing.
    """

def read_stream(adapter_json: str, workload: str, chunks: list[bytes]) -> str:
    """Read an engine's stream by an adapter's grammar: `{"text", "events", "end" | "fault"}` as JSON.

    Raises:
        ValueError: the adapter is not valid or has no such route.
    """
