"""Every default, with its unit and where it comes from.

What may not live here: decisions. A policy is a set of numbers; `_protocol.retry`, `_client.core`
and `_client.polling` decide what to do with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = [
    "ADOPT_DELAY",
    "ARCHIVE_CONCURRENCY",
    "ARCHIVE_FAILURES",
    "ARCHIVE_PATIENCE",
    "ASSISTANTS_VERSION",
    "BODY_TIMEOUT",
    "CANCEL_GRACE",
    "CHAT_BUFFER_BYTES",
    "CHAT_DRAIN",
    "CHAT_MAX_HELD",
    "CHAT_MAX_WAITING",
    "CLOSING_MEMORY",
    "CONNECT_TIMEOUT",
    "CONVERSATION_LEASE",
    "CONVERSATION_MAX_PAUSE",
    "CONVERSATION_POLL",
    "DEFAULT_RUN_LIFETIME",
    "DRAIN_GRACE",
    "ELEMENT_COST",
    "EVENTS_TTL",
    "EXPIRY_MARGIN",
    "FLUSH_BYTES",
    "FLUSH_INTERVAL",
    "HEARTBEAT_INTERVAL",
    "HELD_SHARE",
    "HINTED_POLLS",
    "HOLD_MARGIN",
    "IDEMPOTENCY_TTL",
    "KEEPALIVE_TIMEOUT",
    "KEY_PAUSE",
    "LOCK_PATIENCE",
    "MAX_ANSWER_BYTES",
    "MAX_ANSWER_PARTS",
    "MAX_CONCURRENT_RUNS",
    "MAX_CONNECTIONS",
    "MAX_DESCRIPTORS",
    "MAX_EVENT_BYTES",
    "MAX_FORM_CHANGES",
    "MAX_HELD",
    "MAX_HOLD",
    "MAX_ID_CHARS",
    "MAX_IMPORT_BYTES",
    "MAX_INTEGER",
    "MAX_JSON_DEPTH",
    "MAX_KEPT_TRACES",
    "MAX_KNOWN_MODELS",
    "MAX_LOCK_BYTES",
    "MAX_MESSAGE_CHARS",
    "MAX_MODEL_LIST_BYTES",
    "MAX_OUTPUT_BYTES",
    "MAX_PAGE_BYTES",
    "MAX_PARALLEL_TOOLS",
    "MAX_POLL_HINT",
    "MAX_PROOF_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_RETRIES",
    "MAX_RETRY_AFTER",
    "MAX_RUN_ATTEMPTS",
    "MAX_RUN_LIFETIME",
    "MAX_SERVER_CONNECTIONS",
    "MAX_STREAMS",
    "MAX_STREAM_BYTES",
    "MAX_TOOLS_BYTES",
    "MAX_TOOL_ROUNDS",
    "MAX_TRUNCATIONS",
    "MAX_UNSENT_BYTES",
    "MIN_POLL_DELAY",
    "MODEL_DONE_TIMEOUT",
    "MODEL_IDLE_TIMEOUT",
    "MODEL_LIFE_MARGIN",
    "MODEL_LIST_TIMEOUT",
    "MODEL_LIST_TTL",
    "MODEL_PATIENCE",
    "MODEL_PROBE_TIMEOUT",
    "OBJECT_COST",
    "OUTPUT_MARGIN",
    "POLL_AFTER",
    "POLL_SHARE",
    "RATE_WINDOW",
    "READER_BACKLOG",
    "READINESS_TTL",
    "REFUSAL_LOG_INTERVAL",
    "REPR_CHARS",
    "REPR_VALUE_CHARS",
    "REQUEST_TIMEOUT",
    "RETRY_BUDGET",
    "RETRY_COST",
    "REUSE_IDLE",
    "RUN_LIFETIME",
    "SERVER_PATIENCE",
    "SERVE_PORT",
    "SPARE_DESCRIPTORS",
    "STOP_WRITE_TIMEOUT",
    "STREAM_DRAIN",
    "STREAM_IDLE",
    "TOOL_TIMEOUT",
    "TRIALS_TIME",
    "TRIAL_PAUSE",
    "TRIAL_TIME",
    "UNREAD_FLUSH_INTERVAL",
    "VERSION",
    "WRITE_TIMEOUT",
    "Environment",
    "PollPolicy",
    "RateLimits",
    "RetryPolicy",
    "check_count",
    "check_timeout",
    "from_env",
]

VERSION: Final = "0.1.0"
"""The release; also in the `User-Agent`."""
REQUEST_TIMEOUT: Final = 60.0
"""Seconds for one attempt, connecting and reading included; official SDK: 600."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds to open a connection; official SDK: 5."""
SERVE_PORT: Final = 8080
"""Port of `openai-runs serve`."""
MAX_RETRIES: Final = 2
"""Retries after the first attempt; official SDK: 2."""
MAX_CONNECTIONS: Final = 100
"""Connections per client; aiohttp's own default."""
REUSE_IDLE: Final = 1.5
"""Seconds a connection may have been idle and still be used for a request that may not be repeated.
Servers close idle ones after 2 s (Gunicorn), or 5 s (uvicorn, Node, Apache)."""
CLOSING_MEMORY: Final = 600.0
"""Seconds for which each POST has a new connection, once a server has closed one just used. Ours:
a server that was only restarted is found out in time."""
MAX_RETRY_AFTER: Final = 120.0
"""Seconds; a server that asks for a longer pause is given up on. Official SDK: 120."""
RETRY_BUDGET: Final = 100.0
"""Tokens in a client's retry bucket; botocore's standard mode holds 500 at 5 a retry."""
RETRY_COST: Final = 5.0
"""Tokens a retry takes; a success gives one back. 20 retries, then fail fast."""
RATE_WINDOW: Final = 60.0
"""Seconds over which a rate limit counts; servers state theirs per minute."""
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Bytes of a decompressed answer that are read before the call is refused."""
MAX_ANSWER_PARTS: Final = 2_000_000
"""Objects and arrays of an answer, of up to 170 bytes each once it is parsed, measured."""
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
"""Bytes of one event of a stream."""
MAX_STREAM_BYTES: Final = 128 * 1024 * 1024
"""Decompressed bytes of one stream, with all its connections and rounds of tools, and of the lists
of one result. 20 rounds of 16,384 tokens, the most gpt-4o writes, at 400 bytes an event."""
OBJECT_COST: Final = 400
"""Bytes that a smaller event, or item of a list, counts as: what the least takes in memory."""
ELEMENT_COST: Final = 64
"""Bytes that each element of JSON counts as at least; about 100 in memory, measured."""
MAX_ID_CHARS: Final = 256
"""Characters of an id; the API's own ids have about 30."""
REPR_CHARS: Final = 160
"""Characters of an object's `repr`: two lines of a terminal."""
REPR_VALUE_CHARS: Final = 72
"""Characters of one value within it; an id of the API has about 30."""
ASSISTANTS_VERSION: Final = "v2"
"""Value of the `OpenAI-Beta: assistants=` header; the seeds' first version is v1."""

DEFAULT_RUN_LIFETIME: Final = 600.0
"""Seconds a wait lasts where the server names no expiry; runs live 600 s (OpenAPI example)."""
MAX_RUN_LIFETIME: Final = 24 * 3600.0
"""Seconds; an expiry that is further away is not believed. Runs live 600 s."""
EXPIRY_MARGIN: Final = 10.0
"""Seconds a default wait goes on past `expires_at`, so that the expiry itself is seen."""
MIN_POLL_DELAY: Final = 0.05
"""Seconds; the least pause between two polls that were not held, whatever a hint header says."""
MAX_POLL_HINT: Final = 60.0
"""Seconds; the longest pause between two polls, whatever `openai-poll-after-ms` or a limit says."""
HOLD_MARGIN: Final = 10.0
"""Seconds; the timeout of one poll, of a held one beyond the `Prefer: wait` it asked for."""
HELD_SHARE: Final = 0.5
"""Share of a client's connections that held polls may occupy."""
POLL_SHARE: Final = 0.75
"""Share of a client's connections that all polls together may occupy, one at least."""
HINTED_POLLS: Final = 500.0
"""Polls a second that `openai-poll-after-ms` can ask for, all runs of a client together."""
CANCEL_GRACE: Final = 5.0
"""Seconds the shielded cancel of a server's run may take when the caller is cancelled."""
ADOPT_DELAY: Final = 0.5
"""Seconds between the two polls of a thread for a run whose create was lost."""
ARCHIVE_CONCURRENCY: Final = 8
"""Threads that an export fetches at the same time; each takes one request at a time."""
ARCHIVE_FAILURES: Final = 10
"""Threads in a row that cannot be fetched, after which an export gives the server up."""
ARCHIVE_PATIENCE: Final = 120.0
"""Seconds for which an export or an import tries a request again; longer than a restart takes."""
KEY_PAUSE: Final = 0.5
"""Seconds before a request whose key was refused twice is sent once more; a token is renewed."""
STREAM_IDLE: Final = 30.0
"""Seconds without an event before the run is polled; our server's heartbeat is 15 s."""
CONVERSATION_LEASE: Final = 15.0
"""Seconds after which a conversation is free whose process was killed; renewed every quarter."""
MAX_MESSAGE_CHARS: Final = 256_000
"""Characters of one message; OpenAI refuses longer ones. A longer text of a conversation is sent
in several."""
CONVERSATION_POLL: Final = 1.0
"""Seconds between two polls of a store, at most, for a turn that another process has. Ours."""
CONVERSATION_MAX_PAUSE: Final = 60.0
"""Seconds between two tries to answer a message that was left, at most, unless half the lease is
longer. Ours."""
CHAT_BUFFER_BYTES: Final = 1_048_576
"""Bytes that wait for a browser which reads slowly, before it has to come back. Ours."""
CHAT_MAX_WAITING: Final = 20
"""Messages of one user that wait or are answered at a time, in one process of a chat. Ours."""
CHAT_MAX_HELD: Final = 3
"""Messages of one user whose requests stay open for their answers: half of the six connections that
a browser opens to one host over HTTP/1.1."""
CHAT_DRAIN: Final = 1.0
"""Seconds that answers at work have when a chat is closed, before they are left. Ours."""
STREAM_DRAIN: Final = 1.0
"""Seconds in which a stream may say that it is done, after the last event of its run."""

MAX_PARALLEL_TOOLS: Final = 10
"""Calls of local tools at the same time, of one run."""
TOOL_TIMEOUT: Final = 60.0
"""Seconds one call of a local tool may take; the same as one request."""
MAX_TOOL_ROUNDS: Final = 20
"""Times one call goes on with a run that asks for tools; LangGraph's recursion limit: 25."""
MAX_OUTPUT_BYTES: Final = 512_000
"""Bytes the outputs of one round may have together; OpenAI refused more than 512 kb."""
OUTPUT_MARGIN: Final = 5.0
"""Seconds before a run's expiry by which outputs go out; a tenth of the rest if less, but 2."""

BATCH_CONCURRENCY: Final = 20
"""Lines of a batch in progress at most. Ours: a fifth of a client's connections."""
BATCH_PATIENCE: Final = 60.0
"""Seconds for which a batch retries a request; as long as a wait tolerates an outage."""
BATCH_RETRIES: Final = 2
"""Retries of a line that failed, in one start with `--retry-failed`; as of a request."""
BATCH_RETRY_PAUSE: Final = 5.0
"""Seconds before such a retry, where the failure names none. Ours."""
BATCH_WAITING: Final = 1000
"""Lines of a batch that wait for a retry at most, beside those in progress; ours: their bodies fit
in memory."""
BATCH_REJECTIONS: Final = 20
"""Lines that the server rejects with the same answer, and none that it accepts, after which a batch
ends; ours: as many as are in progress."""
BATCH_LOG_INTERVAL: Final = 30.0
"""Seconds between two lines about a batch's progress, where there is no terminal."""
MAX_CSV_VALUE: Final = 2**31 - 1
"""Characters of a value of a CSV file that `batch` reads; ours: as many as every platform takes."""

RUN_LIFETIME: Final = 600
"""Seconds from creation to expiry on our server; OpenAPI example: 600."""
POLL_AFTER: Final = 0.25
"""Seconds in `openai-poll-after-ms`, which our server sends on every GET of an active run."""
MAX_CONCURRENT_RUNS: Final = 64
"""Runs our server executes at the same time; the others wait in its queue."""
MAX_HOLD: Final = 60.0
"""Seconds; the most a `Prefer: wait` is honoured (RFC 7240)."""
MAX_HELD: Final = 10_000
"""Requests our server holds at the same time for `Prefer: wait`; more are answered at once."""
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a request body the server reads."""
MAX_IMPORT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one thread, with all that is on it, that our server reads to keep it as it was."""
MAX_JSON_DEPTH: Final = 128
"""Objects and arrays inside of each other in a request body. Ours: far above any schema, and far
below the 1000 frames of Python's recursion limit, which every decoder and encoder shares."""
MAX_INTEGER: Final = 2**53 - 1
"""The largest whole number in a request; every JSON library keeps it exactly (RFC 8259, 6)."""
MAX_PAGE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of objects after which a page of a list ends, whatever its limit; half of what our client
reads of an answer, and as many as one object can have."""
MAX_TOOLS_BYTES: Final = 1024 * 1024
"""Bytes of the JSON of a run's or an assistant's tools, and of its response format. Ours: the API
bounds their number (128), but not the schemas of their parameters."""
BODY_TIMEOUT: Final = 30.0
"""Seconds a client may take to send a request body to our server; Gunicorn's time-out: 30."""
KEEPALIVE_TIMEOUT: Final = 75.0
"""Seconds our server keeps a connection on which no request becomes whole; nginx: 75."""
MAX_SERVER_CONNECTIONS: Final = 20_000
"""Connections our server has open, where descriptors do not bound them before; twice `MAX_HELD`."""
SPARE_DESCRIPTORS: Final = 32
"""Descriptors our server keeps for all but connections: an idle one has 20 open, 9 of its files."""
MAX_DESCRIPTORS: Final = 65_536
"""Descriptors up to which `openai-runs serve` raises its soft limit; systemd allows 524,288."""
REFUSAL_LOG_INTERVAL: Final = 60.0
"""Seconds for which our server logs one line for all requests that are no valid HTTP."""
READINESS_TTL: Final = 1.0
"""Seconds for which `/readyz` shares what one look at the database has found."""
IDEMPOTENCY_TTL: Final = 24 * 3600
"""Seconds an `Idempotency-Key` is remembered; Stripe: at least 24 h."""
MAX_RUN_ATTEMPTS: Final = 3
"""Crashes of the server in a row, all in trials of one run, after which that run is failed."""
TRIAL_TIME: Final = 10.0
"""Seconds after which a trial of a run is over, if the server still lives. Ours."""
TRIALS_TIME: Final = 60.0
"""Seconds after a start that all trials together take at most; a tenth of a run's life."""
TRIAL_PAUSE: Final = 5.0
"""Seconds that the server must live before a run is tried again in whose trial it crashed. Ours."""
MAX_FORM_CHANGES: Final = 24
"""Other forms of one request that a model endpoint is asked in; they come in 15 kinds."""
MAX_TRUNCATIONS: Final = 10
"""Times one request is made shorter when the model's context is full; each drops half of it."""
MAX_KNOWN_MODELS: Final = 256
"""Models of an endpoint whose learnt forms are remembered; their names may come from clients."""
MODEL_IDLE_TIMEOUT: Final = 60.0
"""Seconds of silence in the middle of a model's answer; nginx's `proxy_read_timeout`: 60."""
MODEL_DONE_TIMEOUT: Final = 15.0
"""Seconds of silence after a finish reason, by which the answer counts as whole; as a heartbeat."""
MODEL_PATIENCE: Final = math.inf
"""Seconds for which a busy model endpoint is asked again; infinite: as long as the run lives."""
MODEL_LIFE_MARGIN: Final = 2.0
"""Seconds before a run's expiry in which no attempt begins: it fails with a reason instead."""
MODEL_LIST_TIMEOUT: Final = 5.0
"""Seconds a model endpoint may take to list its models, for `GET /v1/models`."""
MODEL_LIST_TTL: Final = 30.0
"""Seconds such a list, or its failure, is kept; whoever looks for a new model waits no longer."""
MODEL_PROBE_TIMEOUT: Final = 3.0
"""Seconds within which an endpoint must answer that is tried when a server starts. Ours."""
MAX_MODEL_LIST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of such a list; OpenRouter's, the longest known, has about 0.6 MB."""
WORKER_SILENCE: Final = 10
"""Seconds without a report after which a process that executes runs of a PostgreSQL database counts
as gone, and the others take over its runs. Ours: five reports."""
WORKER_REPORT_INTERVAL: Final = 2.0
"""Seconds between two reports of such a process that it is alive. Ours."""
SWEEP_INTERVAL: Final = 1.0
"""Seconds between two sweeps of each process on PostgreSQL, for runs that expire or that nothing
woke it for: what a lost notification costs. Ours."""
MAX_CLAIM: Final = 16
"""Runs that a process claims in one transaction, on PostgreSQL. Ours: a commit for each was four
times slower."""
POSTGRES_WRITERS: Final = 6
"""Connections of a process for transactions that write, on PostgreSQL; each has a thread. Ours."""
POSTGRES_READERS: Final = 3
"""Connections of a process for those that only read. Ours."""
POSTGRES_SILENCE: Final = 30.0
"""Seconds without a word of PostgreSQL after which a statement has failed; a lock is waited for
less long. Ours."""
CLOCK_TOLERANCE: Final = 5.0
"""Seconds by which a machine's clock may differ from PostgreSQL's without a warning. Ours: runs
expire by it, and NTP keeps milliseconds."""
DRAIN_GRACE: Final = 10.0
"""Seconds a stopping server lets running work finish."""
MAX_KEPT_TRACES: Final = 10_000
"""Traces of active runs that a traced server remembers, some 500 bytes each; ours."""
MAX_STREAMS: Final = 1000
"""Streams our server has open at the same time; as many as the official SDK's connections."""
HEARTBEAT_INTERVAL: Final = 15.0
"""Seconds of silence after which a stream carries a comment; HTML standard, 9.2.7: about 15."""
WRITE_TIMEOUT: Final = 15.0
"""Seconds a reader may take no data of any answer before it is dropped; nginx: 60."""
LOCK_PATIENCE: Final = 1.0
"""Seconds a starting server tries to acquire its file's lock; another process may just check it."""
SERVER_PATIENCE: Final = 5.0
"""Seconds `AsyncClient.local()` waits for the server that has the file: for its address, and for
its proof that it has the file. A server that starts needs well under one."""
MAX_LOCK_BYTES: Final = 4096
"""Bytes of a lock file that are read; ours have about 150."""
MAX_PROOF_BYTES: Final = 16 * 1024
"""Bytes of the answer in which a server proves that it has a file; ours have about 400."""
STOP_WRITE_TIMEOUT: Final = 1.0
"""Seconds it may take none once the server stops."""
MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Bytes that answers of more than 64 KiB hold together until they are read; more are a 503."""
READER_BACKLOG: Final = 256 * 1024
"""Bytes kept for a reader that is slower than its run; beyond, it reads the database."""
FLUSH_INTERVAL: Final = 0.05
"""Seconds between two writes of a run's deltas while somebody reads them; 20 a second."""
UNREAD_FLUSH_INTERVAL: Final = 1.0
"""Seconds between them while nobody does: what a killed server loses of a text."""
FLUSH_BYTES: Final = 64 * 1024
"""Bytes of deltas that are written at once, whoever reads them."""
EVENTS_TTL: Final = 7 * 24 * 3600
"""Seconds the events of a finished run are kept, for readers that come back."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a failed attempt is repeated. Immutable; share it freely."""

    max_retries: int = MAX_RETRIES
    """Retries after the first attempt; 0 turns retrying off."""
    patience: float | None = None
    """Seconds after its first failure for which a call is tried again, however often, in place
    of `max_retries` and outside of the client's budget; a 429 starts them again, for 600 s in
    all. None: `max_retries` counts."""
    initial: float = 0.5
    """Seconds before the first retry, doubled for each further one; official SDK: 0.5."""
    maximum: float = 8.0
    """Seconds; the longest pause the doubling reaches; official SDK: 8."""
    jitter: float = 0.25
    """Share of the pause taken away at random, 0 to 1; official SDK: 0.25."""
    adopt: bool = True
    """Mark creates so that a run whose answer was lost can be found and adopted."""

    def __post_init__(self) -> None:
        """Refuse numbers no wait could be made of."""
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int):
            message = f"max_retries must be an integer, got {self.max_retries!r}"
            raise TypeError(message)
        if self.max_retries < 0:
            message = f"max_retries must be 0 or more, got {self.max_retries!r}"
            raise ValueError(message)
        if self.patience is not None:
            _check_seconds("patience", self.patience, infinite=True)
        _check_seconds("initial", self.initial)
        _check_seconds("maximum", self.maximum)
        _check_share("jitter", self.jitter)


class PollPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a wait paces its polls where the server gives no hint. Immutable.

    A hint (`openai-poll-after-ms`; our server sends `POLL_AFTER`) wins over all pauses here. One
    poll may take `HOLD_MARGIN` seconds, or the call's `request_timeout`, beyond `long_poll`.
    """

    initial: float = 0.25
    """Seconds before the second poll."""
    factor: float = 1.5
    """What each pause is multiplied by; at least 1."""
    maximum: float = 5.0
    """Seconds; the longest pause."""
    jitter: float = 0.25
    """Share of the pause taken away at random, 0 to 1."""
    long_poll: float = 30.0
    """Seconds asked for in `Prefer: wait`; 0 does not ask."""
    max_outage: float = 60.0
    """Seconds without any answer before the wait gives the server up."""

    def __post_init__(self) -> None:
        """Refuse numbers no wait could be made of."""
        _check_seconds("initial", self.initial)
        _check_seconds("maximum", self.maximum)
        _check_seconds("long_poll", self.long_poll)
        _check_seconds("max_outage", self.max_outage, infinite=True)
        _check_share("jitter", self.jitter)
        if not 1.0 <= self.factor < math.inf:
            message = f"factor must be a finite number of at least 1, got {self.factor!r}"
            raise ValueError(message)


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What a client may use of a server, whatever the server itself says. Immutable."""

    requests_per_minute: int | None = None
    """Requests in any 60 s, polls and retries included; None sets no limit."""
    tokens_per_minute: int | None = None
    """Tokens of runs; what a run used is known when it has ended, and new runs wait while more
    was used than this allows. None sets no limit."""

    def __post_init__(self) -> None:
        """Refuse numbers under which nothing could ever be sent."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                message = f"{name} must be an integer or None, got {value!r}"
                raise TypeError(message)
            if value < 1:
                message = f"{name} must be 1 or more, got {value!r}"
                raise ValueError(message)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the process environment says about a client."""

    base_url: str | None = None
    api_key: str | None = None
    organization: str | None = None
    project: str | None = None

    def __repr__(self) -> str:
        """Show everything but the key."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Environment({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show rich tracebacks everything but the key; msgspec's own shows it."""
        return [
            ("base_url", self.base_url),
            ("api_key", "***" if self.api_key else None),
            ("organization", self.organization),
            ("project", self.project),
        ]


def from_env(environ: Mapping[str, str]) -> Environment:
    """Return the client settings found in `environ`; blank values count as absent.

    Args:
        environ: Such as `os.environ`.
    """

    def read(name: str) -> str | None:
        return environ.get(name, "").strip() or None

    return Environment(
        base_url=read("OPENAI_BASE_URL"),
        api_key=read("OPENAI_API_KEY"),
        organization=read("OPENAI_ORG_ID"),
        project=read("OPENAI_PROJECT_ID"),
    )


def check_count(name: str, value: object) -> int:
    """Return `value` if it is a whole number of at least 1.

    Args:
        name: What the error calls it.
        value: The number.

    Raises:
        TypeError: `value` is no whole number.
        ValueError: `value` is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be a whole number, got {value!r}"
        raise TypeError(message)
    if value < 1:
        message = f"{name} must be 1 or more, got {value!r}"
        raise ValueError(message)
    return value


def check_timeout(name: str, value: float | None) -> float | None:
    """Return `value` if it is None or a positive number of seconds, else raise `ValueError`.

    Args:
        name: What the error calls it.
        value: Seconds, None or not.

    Raises:
        TypeError: `value` is no number.
        ValueError: `value` is zero, negative or NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        message = f"{name} must be a number of seconds or None, got {value!r}"
        raise TypeError(message)
    if math.isnan(value) or value <= 0:
        message = f"{name} must be more than 0 seconds, got {value!r}"
        raise ValueError(message)
    return float(value)


def _check_seconds(name: str, value: float, *, infinite: bool = False) -> None:
    if not value >= 0 or (math.isinf(value) and not infinite):
        message = f"{name} must be 0 or more seconds, got {value!r}"
        raise ValueError(message)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        message = f"{name} must be between 0 and 1, got {value!r}"
        raise ValueError(message)
