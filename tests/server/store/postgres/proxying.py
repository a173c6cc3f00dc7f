"""A TCP proxy before PostgreSQL that breaks connections at a statement, or holds them up."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg import conninfo

from tests.postgres import changed_url

__all__ = ["PostgresProxy", "proxied"]

_PIECE = 65536


class PostgresProxy:
    """Passes on what clients and the server say, until it is told otherwise."""

    def __init__(self, upstream: str) -> None:
        """Stand before the server at this URL, on a free port of the loopback."""
        known = conninfo.conninfo_to_dict(upstream)
        self._host, self._port = str(known.get("host") or "127.0.0.1"), str(known.get("port", 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        plain = {"sslmode": "disable", "gssencmode": "disable"}  # or nothing could be read
        self.url = changed_url(upstream, host="127.0.0.1", port=port, **plain)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._cut: tuple[bytes, bool] | None = None
        self.cuts = 0
        """Connections that were cut at a statement."""
        self.refusing = False
        """Whether new connections are closed at once."""
        self.refused = 0
        """How many were."""
        self.refusing_after_cut = False
        """Whether that begins with the next cut."""
        self.losing: bytes | None = None
        """What the server says with this in it is lost."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._silent: set[tuple[socket.socket, socket.socket]] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, statement: str, *, answered: bool) -> None:
        """Cut the next connection that sends this; `answered`: once the server has done it."""
        self._cut = (statement.encode(), answered)

    def cut_all(self) -> None:
        """Cut all connections, with a reset."""
        for pair in self._pairs:
            for one in pair:
                _reset(one)
        self._pairs.clear()

    def hold(self) -> None:
        """Pass nothing on, as a network that loses all packets."""
        self._flowing.clear()

    def silence(self) -> None:
        """Pass nothing on any more for the connections that are there, whose server is gone."""
        self._silent.update(self._pairs)

    def let_go(self) -> None:
        """Pass on again, also what was held up."""
        self._flowing.set()

    def close(self) -> None:
        """End all of it."""
        self.refusing = True
        self._closed.set()
        self.let_go()
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                self.refused += 1
                _reset(client)
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = self._connect()
        except OSError:
            _reset(client)
            return
        self._pairs.append((client, server))
        with suppress(OSError, ValueError):
            while self._pass_on(client, server):
                pass
        _reset(client)
        _reset(server)

    def _connect(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, int(self._port)))
        made = socket.socket(socket.AF_UNIX)
        made.connect(f"{self._host}/.s.PGSQL.{self._port}")
        return made

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what is there; return whether the connection goes on."""
        ready, _, _ = select.select([client, server], [], [])
        self._flowing.wait()
        if (client, server) in self._silent:
            self._closed.wait()
            return False
        for one, other in ((client, server), (server, client)):
            if one not in ready:
                continue
            data = one.recv(_PIECE)
            if not data:
                return False
            if one is client and self._cut is not None and self._cut[0] in data:
                (_, answered), self._cut = self._cut, None
                if answered:
                    server.sendall(data)
                    server.recv(_PIECE)
                self.cuts += 1
                if self.refusing_after_cut:
                    self.refusing = True
                    self.cut_all()
                return False
            if one is client or self.losing is None or self.losing not in data:
                other.sendall(data)
        return True


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxied(upstream: str) -> Iterator[PostgresProxy]:
    """Yield a proxy before the server at this URL."""
    proxy = PostgresProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
