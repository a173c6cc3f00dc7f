"""The server: the same API, in one process on one SQLite file, or in many on PostgreSQL.

`LocalServer` is a server on a port, `create_app` the same as an aiohttp application. A
`Backend` says where answers come from.
"""

from __future__ import annotations

from openai_runs.server.backends.base import (
    Backend,
    Echoed,
    Finish,
    FinishReason,
    ModelEvent,
    ModelFailure,
    ModelRequest,
    TextDelta,
    ToolCallDelta,
    Turn,
)
from openai_runs.server.backends.chat.backend import ChatBackend
from openai_runs.server.backends.echo import EchoBackend
from openai_runs.server.backends.models import ModelInfo
from openai_runs.server.backends.routing import Route, RoutingBackend
from openai_runs.server.backends.scripted import (
    Call,
    CallTools,
    Cut,
    Fail,
    Hang,
    Say,
    ScriptedBackend,
    ScriptedTurn,
)
from openai_runs.server.clock import Clock, SystemClock
from openai_runs.server.http.app import create_app
from openai_runs.server.http.connection import ApiRunner
from openai_runs.server.local import LocalServer
from openai_runs.server.store import serving_url
from openai_runs.server.worker import Worker

__all__ = [
    "ApiRunner",
    "Backend",
    "Call",
    "CallTools",
    "ChatBackend",
    "Clock",
    "Cut",
    "EchoBackend",
    "Echoed",
    "Fail",
    "Finish",
    "FinishReason",
    "Hang",
    "LocalServer",
    "ModelEvent",
    "ModelFailure",
    "ModelInfo",
    "ModelRequest",
    "Route",
    "RoutingBackend",
    "Say",
    "ScriptedBackend",
    "ScriptedTurn",
    "SystemClock",
    "TextDelta",
    "ToolCallDelta",
    "Turn",
    "Worker",
    "create_app",
    "serving_url",
]
