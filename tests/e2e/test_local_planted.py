"""`AsyncClient.local()` where somebody else has put something beside the database, or in its place.

Each case ends, within a bound, in an error that names the path, and nothing that was there changes.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, ConfigError, Thread
from openai_runs.server import LocalServer, serving_url

pytestmark = pytest.mark.timeout(60)

KEY = "key-that-nobody-else-may-see-1234"
LONG = 20.0
"""Seconds within which each case ends; far more than any needs."""


async def use(db: Path) -> Thread:
    """Make a thread by the embedded server of this file."""
    with anyio.fail_after(LONG):
        async with AsyncClient.local(db, api_key=KEY) as client:
            return await client.threads.create()


def bind_socket(path: Path) -> None:
    """Leave a socket at this path."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:  # by a short name: there is a limit of 108 bytes
        bound.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def link_to(path: Path, content: str | None) -> None:
    """Make a symbolic link, to a file with this content or to none."""
    target = path.with_name("target")
    if content is not None:
        target.write_text(content)
    path.symlink_to(target)


def write_hard_link(path: Path) -> None:
    """Give another file this name as well."""
    path.with_name("target").write_text("precious")
    path.hardlink_to(path.with_name("target"))


def write_large(path: Path) -> None:
    """Make a file of a tebibyte, without its blocks."""
    path.touch()
    os.truncate(path, 1 << 40)


def write_writable(path: Path) -> None:
    """Make a file to which everybody may write."""
    path.touch()
    path.chmod(0o666)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda path: link_to(path, "precious"), "is a symbolic link"),
    "dangling-link": (lambda path: link_to(path, None), "is a symbolic link"),
    "link-to-itself": (lambda path: path.symlink_to(path), "is a symbolic link"),
    "fifo": (os.mkfifo, "is a fifo"),
    "directory": (Path.mkdir, "is a directory"),
    "socket": (bind_socket, "is a socket"),
    "hard-link": (write_hard_link, "has 2 names"),
    "large": (write_large, "is not a lock file"),
    "garbage": (lambda path: path.write_text("precious"), "is not a lock file"),
    "not-utf-8": (lambda path: path.write_bytes(b'{"pid":\xff\xfe'), "is not a lock file"),
    "other-json": (lambda path: path.write_text('{"url": "precious"}'), "is not a lock file"),
    "writable-by-all": (write_writable, "other users can write to its lock file"),
}


@pytest.mark.parametrize(("plant", "words"), STRANGE.values(), ids=STRANGE)
async def test_lock_file_that_is_not_ours_is_refused_and_left_alone(
    plant: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    """By the client and by a server; what it leads to stays as it is, and no database is made."""
    db, lock = tmp_path / "runs.db", tmp_path / "runs.db.lock"
    await anyio.to_thread.run_sync(plant, lock)
    before = os.lstat(lock)

    with pytest.raises(ConfigError) as refused:
        await use(db)
    with pytest.raises(ConfigError) as server_refused:
        await LocalServer(db).start()

    for error in (refused.value, server_refused.value):
        assert words in str(error)
        assert str(lock) in str(error)
    after = os.lstat(lock)
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )
    target = tmp_path / "target"
    assert not target.exists() or target.read_text() == "precious"
    assert not db.exists()


UNFINISHED = {"empty": b"", "half": b'{"pid":12,"ur', "begin": b'{"pi', "zeros": b"\0" * 40}


@pytest.mark.parametrize("content", UNFINISHED.values(), ids=UNFINISHED)
async def test_lock_file_of_a_server_that_crashed_is_used_again(
    content: bytes, tmp_path: Path
) -> None:
    """What a kill or a loss of power leaves of ours stands in nobody's way."""
    (tmp_path / "runs.db.lock").write_bytes(content)

    assert (await use(tmp_path / "runs.db")).id.startswith("thread_")


@contextmanager
def holding(db: Path, content: str) -> Iterator[None]:
    """Hold the lock of the database with this content, as another process would."""
    lock = db.with_name(f"{db.name}.lock")
    lock.write_text(content)
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def naming(url: str, **more: Any) -> str:
    """Return what a lock file says of a server at this address."""
    secret = {"secret": "a" * 64}
    return json.dumps({"pid": 1, "url": url, **secret, **more}, separators=(",", ":"))


FOREIGN = {
    "other-host": "http://example.org:8080/v1",
    "other-address": "http://192.0.2.1:8080/v1",
    "any-address": "http://0.0.0.0:8080/v1",
    "name": "http://localhost:8080/v1",
    "name-below": "http://127.0.0.1.example.org:8080/v1",
    "credentials": "http://user:password-of-theirs@127.0.0.1:8080/v1",
    "credentials-as-host": "http://127.0.0.1:80@example.org:8080/v1",
    "https": "https://127.0.0.1:8080/v1",
    "file": "file:///etc/passwd",
    "port-0": "http://127.0.0.1:0/v1",
    "port-too-large": "http://127.0.0.1:65536/v1",
    "no-port": "http://127.0.0.1/v1",
    "path": "http://127.0.0.1:8080/../x",
    "query": "http://127.0.0.1:8080/v1?to=x",
    "line-break": "http://127.0.0.1:8080/v1\r\nx: y",
    "not-ascii": "http://127.0.0.1:8080/v1\u0661",
    "long": "http://127.0.0.1:8080/" + "v" * 3000 + "!",
    "no-number": "http://127.999.0.1:8080/v1",
}


@pytest.mark.parametrize("url", FOREIGN.values(), ids=FOREIGN)
async def test_address_in_a_lock_that_is_not_of_loopback_is_not_believed(
    url: str, tmp_path: Path
) -> None:
    """Nothing is sent there; the error names the lock file and shows no password."""
    db = tmp_path / "runs.db"
    with holding(db, naming(url)), pytest.raises(ConfigError, match="not a loopback") as refused:
        await use(db)

    assert str(tmp_path / "runs.db.lock") in str(refused.value)
    assert "password-of-theirs" not in str(refused.value)
    assert len(str(refused.value)) < 1000


class Peer:
    """A server that is not ours: keeps what it is sent, and answers with `answer`, or never."""

    def __init__(self, answer: bytes | None) -> None:
        self.received = b""
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._open = ExitStack()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._open.enter_context(peer)
            self.received += peer.recv(65536)
            if self._answer is not None:
                peer.sendall(self._answer)
                peer.close()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._open.close()


@pytest.fixture
def start_peer() -> Iterator[Callable[[bytes | None], Peer]]:
    """A function that starts a server that is not ours."""
    with ExitStack() as stack:

        def start(answer: bytes | None) -> Peer:
            peer = Peer(answer)
            stack.callback(peer.close)
            return peer

        yield start


ANSWERS: dict[str, bytes | None] = {
    "healthy": b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"status":"ok"}',
    "wrong-proof": b"HTTP/1.1 200 OK\r\ncontent-length: 76\r\n\r\n"
    + b'{"proof":"%s"}' % (b"a" * 64),
    "redirect": b"HTTP/1.1 307 R\r\nlocation: http://127.0.0.1:9/v1\r\ncontent-length: 0\r\n\r\n",
    "no-http": b"\xff" * 100_000,
    "nothing": b"",
    "never": None,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_server_that_does_not_prove_that_it_has_the_file_is_sent_nothing(
    answer: bytes | None, start_peer: Callable[[bytes | None], Peer], tmp_path: Path
) -> None:
    """Neither the key nor a request; whether it answers, and what, the wait for it has an end."""
    db, peer = tmp_path / "runs.db", start_peer(answer)
    with (
        holding(db, naming(peer.url)),
        pytest.raises(ConfigError, match="did not prove that it has database") as refused,
    ):
        await anyio.to_thread.run_sync(lambda: serving_url(db, patience=0.5))

    assert str(db) in str(refused.value)
    assert peer.url in str(refused.value)
    assert peer.received.startswith(b"GET /database-proof?nonce=")
    assert KEY.encode() not in peer.received
    assert b"authorization" not in peer.received.lower()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a server that has the lock half a second to say where it is, in place of seconds."""
    monkeypatch.setitem(serving_url.__kwdefaults__ or {}, "patience", 0.5)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("answer", [ANSWERS["healthy"], None], ids=["healthy", "never"])
async def test_client_tells_its_key_to_no_server_that_a_planted_lock_names(
    answer: bytes | None, start_peer: Callable[[bytes | None], Peer], tmp_path: Path
) -> None:
    """The whole way of `local()`."""
    db, peer = tmp_path / "runs.db", start_peer(answer)
    with holding(db, naming(peer.url)), pytest.raises(ConfigError, match="did not prove"):
        await use(db)

    assert KEY.encode() not in peer.received
    assert b"POST" not in peer.received


@pytest.mark.usefixtures("hurried")
async def test_lock_that_is_held_without_an_address_ends_in_an_error(tmp_path: Path) -> None:
    """Whoever holds it never says where it is: the wait ends."""
    db = tmp_path / "runs.db"
    with holding(db, '{"pid":1}'), pytest.raises(ConfigError, match="in use by the server"):
        await use(db)


async def test_proof_of_another_server_of_ours_is_none(tmp_path: Path) -> None:
    """Another database's server knows another secret; a relay to the right one, another address."""
    db = tmp_path / "runs.db"
    async with LocalServer(db) as right, LocalServer(tmp_path / "other.db") as other:
        text = (tmp_path / "runs.db.lock").read_text()
        (tmp_path / "copy").mkdir()
        copy = tmp_path / "copy" / "runs.db"
        for url in (other.url, right.url.replace("127.0.0.1", "127.0.0.2")):
            with (
                holding(copy, text.replace(right.url, url)),
                pytest.raises(ConfigError, match="did not prove"),
            ):
                await anyio.to_thread.run_sync(lambda: serving_url(copy, patience=0.3))
        assert await anyio.to_thread.run_sync(serving_url, db) == right.url


async def test_server_of_a_key_proves_itself_without_one(tmp_path: Path) -> None:
    """On any address of this machine; the proof needs a number of the right form."""
    db = tmp_path / "runs.db"
    for host in ("127.0.0.1", "::1", "0.0.0.0"):
        async with LocalServer(db, host=host, api_key=KEY):
            found = await anyio.to_thread.run_sync(serving_url, db)
            assert found is not None
            async with AsyncClient.local(db, api_key=KEY) as client:
                await client.threads.create()
            assert client.base_url is None or client.base_url == found


IN_ITS_PLACE: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (os.mkfifo, "is a fifo"),
    "directory": (Path.mkdir, "is a directory"),
    "socket": (bind_socket, "is a socket"),
    "link-to-itself": (lambda path: path.symlink_to(path), "is a symbolic link"),
    "hard-link": (write_hard_link, "has 2 names"),
    "read-only": (lambda path: path.touch(0o444), "cannot be written to"),
    "write-ahead-log-fifo": (lambda path: os.mkfifo(f"{path}-wal"), "-wal' is a fifo"),
    "write-ahead-log-link": (lambda path: link_to(Path(f"{path}-wal"), "x"), "is a symbolic"),
    "shared-memory-directory": (lambda path: Path(f"{path}-shm").mkdir(), "is a directory"),
    "journal-fifo": (lambda path: os.mkfifo(f"{path}-journal"), "-journal' is a fifo"),
}


@pytest.mark.parametrize(("plant", "words"), IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)
async def test_something_else_in_the_place_of_the_database_is_refused(
    plant: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    """Opening it neither blocks nor changes it, and the error names it."""
    db = tmp_path / "runs.db"
    await anyio.to_thread.run_sync(plant, db)

    with pytest.raises(ConfigError, match=words) as refused:
        await use(db)

    assert str(db) in str(refused.value)


async def test_two_names_of_one_database_have_one_lock(tmp_path: Path) -> None:
    """A symbolic link to a database is fine: the second client connects to the first's server."""
    (tmp_path / "real").mkdir()
    db, link = tmp_path / "real" / "runs.db", tmp_path / "link.db"
    link.symlink_to(db)
    async with AsyncClient.local(link) as first, AsyncClient.local(db) as second:
        thread = await first.threads.create()
        assert await second.threads.retrieve(thread.id) == thread

    assert (tmp_path / "real" / "runs.db.lock").exists()
    assert not (tmp_path / "link.db.lock").exists()
