"""Hearing what other processes have committed, by LISTEN.

Theory of operation. Each transaction that changes a run sends a notification with the run's id and
the name of the process, which PostgreSQL delivers after the commit to all who listen. It is a
hint: what was committed is read from the database. A notification that is missed would leave
somebody waiting, so whenever the connection was lost, and is there again, everything that is held
counts as out of date. The connection is looked at every few seconds, since one that was cut off
says nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import Any, Final

import psycopg

from openai_runs.errors import ConfigError
from openai_runs.server.store.postgres.connection import connect, place_of

__all__ = ["CHANNEL", "Listener"]

CHANNEL: Final = "openai_runs"
_CHECKED: Final = 5.0
"""Seconds without a notification after which the connection is checked."""
_SILENT: Final = 10.0
"""Seconds without an answer to that check after which it is opened again."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0)
"""Seconds before it is opened again; the last one again and again."""
_HELLO_TIME: Final = 2.0
"""Seconds in which a notification to itself has to arrive."""

_logger = logging.getLogger("openai_runs.server")


class Listener:
    """Listens in a thread of its own, until it is stopped."""

    def __init__(
        self,
        url: str,
        options: dict[str, Any],
        process: str,
        on_change: Callable[[str | None], None],
    ) -> None:
        """Keep the settings.

        Args:
            url: For messages.
            options: What the connection is opened with.
            process: The name of this process, whose own notifications are passed over.
            on_change: Called in the thread with the id of a run; None: any may have changed.
        """
        self._url = url
        self._options = options
        self._process = process
        self._on_change = on_change
        self._stopped = threading.Event()
        self._heard = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(
            target=self._serve, name="openai_runs.listener", daemon=True
        )

    def start(self, notify: Callable[[str], None]) -> None:
        """Begin to listen; `notify` sends a notification with this payload.

        Raises:
            ConfigError: Notifications do not arrive.
            psycopg.Error: The connection cannot be opened.
        """
        self._connection = self._connect()
        self._thread.start()  # a daemon: a program that forgets to close the server can still end
        notify(f"{self._process} hello")
        if self._heard.wait(_HELLO_TIME):
            return
        self.stop()
        message = (
            f"database {place_of(self._url)}: a NOTIFY did not arrive within {_HELLO_TIME:g} s, so "
            "processes could not notify each other. PgBouncer in transaction mode loses "
            "notifications: connect to PostgreSQL itself, or to a pool in session mode"
        )
        raise ConfigError(message)

    def stop(self) -> None:
        """End the thread; blocks."""
        self._stopped.set()
        connection = self._connection
        if connection is None:
            return
        if self._thread.is_alive():
            # The thread waits for the socket: its end wakes it, and nobody uses the number again.
            with (
                suppress(psycopg.Error, OSError),
                socket(fileno=os.dup(connection.fileno())) as end,
            ):
                end.shutdown(SHUT_RDWR)
            self._thread.join()
            connection = self._connection or connection  # it may have opened another meanwhile
        connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect(self._options, silence=_SILENT)
        try:
            connection.execute(f"LISTEN {CHANNEL}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _serve(self) -> None:
        while not self._stopped.is_set():
            connection = self._connection
            assert connection is not None
            try:
                self._listen(connection)
            except (psycopg.Error, OSError, ValueError) as error:
                if self._stopped.is_set():
                    break
                words = "the connection that hears of changes was lost: %s"
                _logger.warning(words, type(error).__name__)
            connection.close()
            self._reconnect()

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stopped.is_set():
            for notification in connection.notifies(timeout=_CHECKED):
                self._receive(notification.payload)
            connection.execute("SELECT 1")

    def _receive(self, payload: str) -> None:
        process, _, run_id = payload.partition(" ")
        if process == self._process:
            self._heard.set()
        else:
            self._on_change(run_id)

    def _reconnect(self) -> None:
        pauses = iter(_PAUSES)
        pause = _PAUSES[0]
        while not self._stopped.wait(pause):
            try:
                self._connection = self._connect()
            except (psycopg.Error, OSError) as error:  # the latter: no descriptor is left
                _logger.debug("no connection to hear of changes: %s", type(error).__name__)
                pause = next(pauses, _PAUSES[-1])
                continue
            _logger.info("changes are heard of again")
            self._on_change(None)
            return
