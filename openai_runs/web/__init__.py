"""Web back ends: a chat for each user, its page code, and errors as answers to a browser.

Written on public names, and without a framework; `openai_runs.web.starlette` (for FastAPI, too)
and `openai_runs.web.aiohttp` are the adapters.
"""

from pathlib import Path
from typing import Final

from openai_runs.web.chat import Chat, History, ShownMessage
from openai_runs.web.errors import (
    EmptyMessageError,
    ErrorResponse,
    InvalidTextError,
    TooManyMessagesError,
    error_response,
)

__all__ = [
    "SCRIPT",
    "Chat",
    "EmptyMessageError",
    "ErrorResponse",
    "History",
    "InvalidTextError",
    "ShownMessage",
    "TooManyMessagesError",
    "error_response",
]

SCRIPT: Final = Path(__file__).with_name("chat.js")
"""The page code: a JavaScript module without dependencies, to be served as a file."""
