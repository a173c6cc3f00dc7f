"""The file of endpoints and models: what it says is done, and each mistake names its place."""

from __future__ import annotations

import doctest
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import ChatBackend, Finish, ModelEvent, ModelRequest, TextDelta
from openai_runs.server.backends import routing_file
from openai_runs.server.backends.routing_file import load_routing
from tests.server.backends.test_routing import answer_of

KEYS = {"DEEPSEEK_API_KEY": "sk-deep", "BLANK": " "}
WHOLE = """
[endpoints.local]
url = "http://127.0.0.1:11434/v1"
timeout = 600
first_token_timeout = 300.5
idle_timeout = 120
think = "strip"
forms = { instructions = "user", content = "null" }

[endpoints.local.echo]
reasoning_content = "append"

[endpoints."deep.seek"]
url = "https://api.deepseek.com"
key_env = "DEEPSEEK_API_KEY"

[models]
"deepseek-*" = { endpoint = "deep.seek" }
"qwen3" = { endpoint = "local" }
"big" = { endpoint = "deep.seek", model = "deepseek-reasoner" }
"gpt-4o*" = "qwen3"
"""


class Made:
    """Stands for the backend of an endpoint; keeps what it was made of."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say where and which model."""
        yield TextDelta(f"{self.url} {request.run.model}")
        yield Finish()


def written(folder: Path, text: str) -> Path:
    """Return a file with this text."""
    path = folder / "models.toml"
    path.write_text(text)
    return path


async def test_file_is_carried_out(tmp_path: Path) -> None:
    """Each endpoint gets its settings, under the names of `ChatBackend`; each name its endpoint."""
    made: list[Made] = []

    def make(url: str, **options: Any) -> Made:
        made.append(Made(url, **options))
        return made[-1]

    path = await anyio.to_thread.run_sync(written, tmp_path, WHOLE)
    backend = await anyio.to_thread.run_sync(load_routing, path, KEYS, make)

    local, deep = made
    assert (local.url, deep.url) == ("http://127.0.0.1:11434/v1", "https://api.deepseek.com")
    assert local.options == {
        "timeout": 600.0,
        "first_token_timeout": 300.5,
        "idle_timeout": 120.0,
        "think": "strip",
        "forms": {"instructions": "user", "content": "null"},
        "echo": {"reasoning_content": "append"},
    }
    assert deep.options == {"api_key": "sk-deep"}
    assert await answer_of(backend, "deepseek-chat") == f"{deep.url} deepseek-chat"
    assert await answer_of(backend, "big") == f"{deep.url} deepseek-reasoner"
    assert await answer_of(backend, "gpt-4o-mini") == f"{local.url} qwen3"


async def test_settings_of_an_endpoint_are_those_of_the_chat_backend(tmp_path: Path) -> None:
    """Whatever a table may hold, `ChatBackend` takes."""
    path = await anyio.to_thread.run_sync(written, tmp_path, WHOLE)

    backend = await anyio.to_thread.run_sync(load_routing, path, KEYS)

    backend.check_model("gpt-4o-mini")
    await backend.aclose()


def test_smallest_file_is_one_endpoint(tmp_path: Path) -> None:
    """Everything goes there, with the defaults of `ChatBackend`."""
    text = '[endpoints.local]\nurl = "http://127.0.0.1:1/v1"'

    backend = load_routing(written(tmp_path, text), {}, ChatBackend)

    backend.check_model("anything")
    assert repr(backend) == "RoutingBackend(['local'])"


ONE = '[endpoints.local]\nurl = "http://127.0.0.1:1/v1"\n'
TWO = f'{ONE}[endpoints.cloud]\nurl = "http://127.0.0.1:2/v1"\n'
MISTAKES: dict[str, tuple[str, list[str]]] = {
    "syntax": ("[endpoints.local\n", ["is no TOML", "line 1"]),
    "twice": (ONE + ONE, ["is no TOML", "line"]),
    "no-utf-8": ("\udcff", ["is no TOML", "UTF-8"]),
    "deep": ("x = " + "[" * 100_000, ["is no TOML"]),
    "empty": ("", ["the file has no 'endpoints'"]),
    "no-endpoints": ("[endpoints]\n", ["[endpoints] is empty", "[endpoints.local]", "url"]),
    "endpoints-text": ('endpoints = "x"', ["the file endpoints", "expected `object`"]),
    "other-table": (f"{ONE}[model]\n", ["the file", "unknown key 'model'", "'models'"]),
    "other-key": (f"{ONE}time_out = 3\n", ["[endpoints.local]", "'time_out'", "'timeout'"]),
    "strange-key": (f"{ONE}xyz = 3\n", ["[endpoints.local]", "'xyz'", "think, forms, echo"]),
    "no-url": ('[endpoints."a b"]\nthink = "keep"', ['[endpoints."a b"] has no', "'url'"]),
    "url-number": ("[endpoints.local]\nurl = 3", ["[endpoints.local] url", "expected `str`"]),
    "url-path": ('[endpoints.local]\nurl = "/v1"', ["[endpoints.local] url", "http://"]),
    "url-other": ('[endpoints.local]\nurl = "file:///etc/passwd"', ["[endpoints.local] url"]),
    "url-no-host": ('[endpoints.local]\nurl = "http:///v1"', ["[endpoints.local] url"]),
    "url-whole": (
        '[endpoints.local]\nurl = "http://x/v1/chat/completions"',
        ["[endpoints.local] url", "must end before /chat/completions"],
    ),
    "url-query": (
        '[endpoints.local]\nurl = "http://x/v1?api-version=1"',
        ["[endpoints.local] url", "no query"],
    ),
    "url-port": ('[endpoints.local]\nurl = "http://x:80000/v1"', ["[endpoints.local] url", "port"]),
    "url-blank": ('[endpoints.local]\nurl = " http://x/v1"', ["[endpoints.local] url", "blanks"]),
    "endpoint-text": ('[endpoints]\nlocal = "http://x/v1"', ["[endpoints.local]", "`object`"]),
    "timeout-text": (f'{ONE}timeout = "1m"\n', ["[endpoints.local] timeout", "`float`"]),
    "timeout-zero": (f"{ONE}timeout = 0\n", ["[endpoints.local] timeout", "more than 0"]),
    "idle-negative": (f"{ONE}idle_timeout = -1\n", ["[endpoints.local] idle_timeout"]),
    "first-nan": (f"{ONE}first_token_timeout = nan", ["[endpoints.local] first_token_timeout"]),
    "think": (f'{ONE}think = "drop"\n', ["[endpoints.local] think", "'drop'"]),
    "forms": (f'{ONE}forms = "x"\n', ["[endpoints.local] forms", "`object`"]),
    "form-number": (f"{ONE}forms = {{ content = 3 }}\n", ["[endpoints.local] forms", "'content'"]),
    "form-list": (f"{ONE}forms = {{ ids = ['made'] }}\n", ["[endpoints.local] forms", "'ids'"]),
    "echo-number": (f"{ONE}echo = {{ mine = 3 }}\n", ["[endpoints.local] echo", "'mine'"]),
    "echo-list": (f"{ONE}echo = {{ mine = ['last'] }}\n", ["[endpoints.local] echo", "'mine'"]),
    "no-such-form": (f'{ONE}forms = {{ contnt = "null" }}', ["[endpoints.local] forms", "contnt"]),
    "echo": (f'{ONE}echo = {{ thought = "first" }}', ["[endpoints.local] echo", "'first'"]),
    "no-variable": (f'{ONE}key_env = "NO_SUCH"\n', ["[endpoints.local] key_env", "NO_SUCH"]),
    "blank-variable": (f'{ONE}key_env = "BLANK"\n', ["[endpoints.local] key_env", "BLANK"]),
    "key": (f'{ONE}key = "sk-deep"\n', ["[endpoints.local]", "'key'", "key_env"]),
    "api-key": (f'{ONE}api_key = "sk-deep"\n', ["[endpoints.local]", "'api_key'", "key_env"]),
    "key-for-its-name": (
        f'{ONE}key_env = "sk-deep"\n',
        ["[endpoints.local] key_env", "name of an environment variable"],
    ),
    "echo-of-the-content": (
        f'{ONE}echo = {{ content = "append" }}',
        ["[endpoints.local] echo", "'content' is sent in any case"],
    ),
    "name-with-a-dot": (
        f'{ONE}[models]\ngpt-4.1 = {{ endpoint = "local" }}',
        ["[models] gpt-4", "in quotes", '"gpt-4.1"'],
    ),
    "circle": (f'{ONE}[models]\na = "b"\nb = "a"', ["[models] 'a' leads back to itself"]),
    "no-models": (TWO, ["[models]", "which models go where"]),
    "models-list": (f"{ONE}[[models]]\n", ["the file models", "`object`"]),
    "no-endpoint": (
        f'{TWO}[models]\n"a*" = {{ endpoint = "lokal" }}',
        ["[models] 'a*'", "no endpoint 'lokal'", "'local', 'cloud'"],
    ),
    "nowhere": (f'{TWO}[models]\na = "b"', ["[models] 'a'", "'b' goes to no endpoint"]),
    "row-number": (f"{TWO}[models]\na = 3", ["[models] a", "endpoint ="]),
    "row-list": (f'{TWO}[models]\na = ["b"]', ["[models] a", "endpoint ="]),
    "row-key": (f'{TWO}[models]\na = {{ endpont = "local" }}', ["[models] a", "'endpoint'"]),
    "row-none": (f'{TWO}[models]\n"a:b" = {{ model = "x" }}', ['[models] "a:b"', "'endpoint'"]),
    "row-model": (
        f'{TWO}[models]\n"a*" = {{ endpoint = "local", model = "b*" }}',
        ['[models] "a*" model', "'b*'"],
    ),
    "row-empty": (f'{TWO}[models]\n"" = "b"', ['[models] ""', "has a name"]),
    "unquoted-dot": (f'{TWO}[models]\ngpt-3.5 = "b"', ["[models] gpt-3", "'5'"]),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_names_file_table_and_key(text: str, words: list[str], tmp_path: Path) -> None:
    """One line that says where it stands; no key of an endpoint is quoted."""
    path = tmp_path / "models.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(ConfigError) as refused:
        load_routing(path, KEYS)

    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    for one in words:
        assert one in said
    assert "sk-deep" not in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    """A wrong path is no empty file."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_routing(tmp_path / name, {})


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "models.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE.encode())

    assert "local" in repr(load_routing(path, KEYS))


def test_examples_in_docstrings_hold() -> None:
    """What a docstring shows is what happens."""
    found = doctest.testmod(routing_file)

    assert (found.attempted > 0, found.failed) == (True, 0)


DOCS = Path(__file__).resolve().parents[3] / "docs" / "pages"
BLOCKS = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, text in enumerate(
        re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.M | re.S)
    )
]


@pytest.mark.parametrize("text", BLOCKS)
def test_file_of_the_docs_can_be_loaded(text: str, tmp_path: Path) -> None:
    """Every TOML block of the docs is a file that a server can be started with."""
    environ = dict.fromkeys(re.findall(r'key_env = "(\w+)"', text), "sk-docs")

    assert load_routing(written(tmp_path, text), environ)


def test_example_of_the_module_can_be_loaded(tmp_path: Path) -> None:
    """Whoever copies it starts with something that works."""
    lines = (routing_file.__doc__ or "").splitlines()
    text = "\n".join(line for line in lines if line.startswith("    "))

    load_routing(written(tmp_path, text), KEYS).check_model("gpt-4o-mini")
