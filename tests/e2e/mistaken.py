"""The commonest mistakes in Python, each made for real; `mistakes.txt` has what is said of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from openai_runs import AsyncClient, RetryPolicy, await_run
from openai_runs.server import ChatBackend, Hang, LocalServer, ScriptedBackend
from openai_runs.testing import RunsServer
from tests.transport.wire import free_port

__all__ = ["MISTAKES", "Scene", "start"]

NO_RETRY: Final = RetryPolicy(max_retries=0)
KEY: Final = "sk-of-this-server-0123456789"
PAGE: Final = "<html><head><title>404 Not Found</title></head><body>nginx</body></html>"


class Scene:
    """What a mistake is made with: opened where it is needed, and closed at the end."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        """Open nothing yet."""
        self.folder = folder
        self._stack = stack

    async def server(self) -> tuple[RunsServer, AsyncClient]:
        """Return a server that follows a script, and a client of it."""
        server = await self.enter(RunsServer())
        return server, await self.client(server.url)

    async def client(self, url: str, key: str | None = None, **options: Any) -> AsyncClient:
        """Return a client that tries once."""
        client = AsyncClient(url, key, retry=NO_RETRY, **options)
        await self.enter(client)
        return client

    async def enter(self, opened: Any) -> Any:
        """Open something for as long as the mistake takes."""
        return await self._stack.enter_async_context(opened)

    async def locked(self) -> str:
        """Return the URL of a server that wants a key."""
        server = await self.enter(LocalServer(api_key=KEY))
        return str(server.url)

    async def site(self, answer: Callable[[web.Request], web.Response], **options: Any) -> int:
        """Return the port of another web service."""
        return int(await self.enter(serve_site(answer, **options)))


@asynccontextmanager
async def serve_site(
    answer: Callable[[web.Request], web.Response], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve one answer for everything, and yield the port."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Names(AbstractResolver):
    """A resolver that knows one address, or none."""

    def __init__(self, address: str | None) -> None:
        """Keep the address of every name."""
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the one address."""
        if self._address is None:
            raise socket.gaierror(-2, "Name or service not known")
        found = {"hostname": host, "host": self._address, "port": port}
        return [{**found, "family": family, "proto": 0, "flags": 0}]  # type: ignore[typeddict-item]

    async def close(self) -> None:
        """Hold nothing."""


def certified(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of a server with a certificate, and that of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def start(client: AsyncClient, model: str = "any", **options: Any) -> tuple[str, str]:
    """Return the ids of a thread and of an assistant."""
    assistant = await client.assistants.create(model=model, **options)
    return (await client.threads.create()).id, assistant.id


async def finish(client: AsyncClient, model: str = "any") -> None:
    """Have a run end, and ask whether it completed."""
    thread_id, assistant_id = await start(client, model)
    run = await client.runs.create_and_poll(thread_id, assistant_id=assistant_id)
    run.raise_for_status()


async def no_base_url(scene: Scene) -> None:
    AsyncClient()


async def base_url_without_scheme(scene: Scene) -> None:
    AsyncClient("127.0.0.1:8123/v1")


async def base_url_with_a_key_in_it(scene: Scene) -> None:
    AsyncClient("http://127.0.0.1:8123/v1?api_key=sk-1234567890123456")


async def base_url_without_v1(scene: Scene) -> None:
    server, _ = await scene.server()
    client = await scene.client(server.url.removesuffix("/v1"))
    await client.threads.create()


async def base_url_with_v1_twice(scene: Scene) -> None:
    server, _ = await scene.server()
    client = await scene.client(f"{server.url}/v1")
    await client.threads.create()


async def base_url_of_a_model(scene: Scene) -> None:
    port = await scene.site(lambda _: web.Response(status=404, text="404 page not found"))
    client = await scene.client(f"http://127.0.0.1:{port}/v1")
    await client.threads.create()


async def base_url_of_a_web_site(scene: Scene) -> None:
    port = await scene.site(lambda _: web.Response(status=404, text=PAGE, content_type="text/html"))
    client = await scene.client(f"http://127.0.0.1:{port}/v1")
    await client.threads.create()


async def base_url_that_redirects(scene: Scene) -> None:
    headers = {"location": "https://runs.example/v1/threads"}
    port = await scene.site(lambda _: web.Response(status=308, headers=headers))
    client = await scene.client(f"http://127.0.0.1:{port}/v1")
    await client.threads.create()


async def openai_itself(scene: Scene) -> None:
    server, trusting = certified("api.openai.com")
    port = await scene.site(
        lambda _: web.json_response({"error": {"message": "Invalid URL"}}, status=404), tls=server
    )
    connector = aiohttp.TCPConnector(resolver=Names("127.0.0.1"))
    session = await scene.enter(aiohttp.ClientSession(connector=connector))
    url = f"https://api.openai.com:{port}/v1"
    client = await scene.client(url, KEY, session=session, ssl=trusting)
    await client.threads.create()


async def server_down(scene: Scene) -> None:
    client = await scene.client(f"http://127.0.0.1:{free_port()}/v1")
    await client.threads.create()


async def name_unknown(scene: Scene) -> None:
    connector = aiohttp.TCPConnector(resolver=Names(None))
    session = await scene.enter(aiohttp.ClientSession(connector=connector))
    client = await scene.client("https://runs.invalid/v1", session=session)
    await client.threads.create()


async def https_to_a_plain_port(scene: Scene) -> None:
    server, _ = await scene.server()
    client = await scene.client(server.url.replace("http:", "https:"))
    await client.threads.create()


async def http_to_a_tls_port(scene: Scene) -> None:
    port = await scene.site(lambda _: web.Response(), tls=certified("localhost")[0])
    client = await scene.client(f"http://localhost:{port}/v1")
    await client.threads.create()


async def private_certificate(scene: Scene) -> None:
    port = await scene.site(lambda _: web.Response(), tls=certified("localhost")[0])
    client = await scene.client(f"https://localhost:{port}/v1")
    await client.threads.create()


async def port_of_something_else(scene: Scene) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"SSH-2.0-OpenSSH_9.0\r\n")
        await writer.drain()
        writer.close()

    listener = await scene.enter(await asyncio.start_server(greet, "127.0.0.1", 0))
    port = listener.sockets[0].getsockname()[1]
    client = await scene.client(f"http://127.0.0.1:{port}/v1")
    await client.threads.create()


async def proxy_down(scene: Scene) -> None:
    proxy = f"http://me:secret@127.0.0.1:{free_port()}"
    client = await scene.client("http://runs.localhost/v1", proxy=proxy)
    await client.threads.create()


async def no_key(scene: Scene) -> None:
    client = await scene.client(await scene.locked())
    await client.threads.create()


async def wrong_key(scene: Scene) -> None:
    client = await scene.client(await scene.locked(), "sk-of-another-server-9876")
    await client.threads.create()


async def key_with_a_line_break(scene: Scene) -> None:
    AsyncClient("http://127.0.0.1:8123/v1", f"{KEY}\n")


async def unknown_thread(scene: Scene) -> None:
    _, client = await scene.server()
    _, assistant_id = await start(client)
    await client.runs.create("thread_404", assistant_id=assistant_id)


async def ids_swapped(scene: Scene) -> None:
    _, client = await scene.server()
    thread_id, _ = await start(client)
    await client.runs.retrieve(thread_id, thread_id="run_1")


async def wait_without_a_thread(scene: Scene) -> None:
    _, client = await scene.server()
    await await_run(client, "run_1")


async def busy_thread(scene: Scene) -> None:
    server, client = await scene.server()
    server.hang()
    thread_id, assistant_id = await start(client)
    await client.runs.create(thread_id, assistant_id=assistant_id)
    await client.runs.create(thread_id, assistant_id=assistant_id)


async def message_on_a_busy_thread(scene: Scene) -> None:
    server, client = await scene.server()
    server.hang()
    thread_id, assistant_id = await start(client)
    await client.runs.create(thread_id, assistant_id=assistant_id)
    await client.messages.create(thread_id, role="user", content="Hi")


async def wait_too_short(scene: Scene) -> None:
    server, client = await scene.server()
    server.hang()
    thread_id, assistant_id = await start(client)
    await client.runs.create_and_poll(thread_id, assistant_id=assistant_id, timeout=0.2)


async def tool_call_not_answered(scene: Scene) -> None:
    server, client = await scene.server()
    server.call_tool("weather", {"city": "Oslo"})
    await finish(client)


async def tool_without_annotations(scene: Scene) -> None:
    def weather(city):  # type: ignore[no-untyped-def]
        return "sunny"

    _, client = await scene.server()
    thread_id, assistant_id = await start(client)
    await client.runs.run_tools(thread_id, assistant_id=assistant_id, tools=[weather])


async def tool_in_place_of_a_list(scene: Scene) -> None:
    def weather(city: str) -> str:
        return "sunny"

    _, client = await scene.server()
    thread_id, assistant_id = await start(client)
    tools: Any = weather
    await client.runs.run_tools(thread_id, assistant_id=assistant_id, tools=tools)


async def run_expired(scene: Scene) -> None:
    server = LocalServer(run_lifetime=1, backend=ScriptedBackend([Hang()]))
    await scene.enter(server)
    await finish(await scene.client(server.url))


async def token_limit(scene: Scene) -> None:
    server, client = await scene.server()
    server.incomplete("max_completion_tokens")
    await finish(client)


async def _ask_model(scene: Scene, url: str, key: str | None = None) -> None:
    server = LocalServer(backend=ChatBackend(url, api_key=key, retry=NO_RETRY))
    await scene.enter(server)
    await finish(await scene.client(server.url), "phi9")


async def model_down(scene: Scene) -> None:
    await _ask_model(scene, f"http://127.0.0.1:{free_port()}/v1")


async def model_unknown(scene: Scene) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/models"):
            return web.json_response({"data": [{"id": "phi4"}, {"id": "qwen3"}]})
        return web.json_response({"error": {"message": "model 'phi9' not found"}}, status=404)

    await _ask_model(scene, f"http://127.0.0.1:{await scene.site(answer)}/v1")


async def model_url_without_v1(scene: Scene) -> None:
    port = await scene.site(lambda _: web.Response(status=404, text="404 page not found"))
    await _ask_model(scene, f"http://127.0.0.1:{port}")


async def model_without_a_key(scene: Scene) -> None:
    port = await scene.site(lambda _: web.json_response({}, status=401))
    await _ask_model(scene, f"http://127.0.0.1:{port}/v1")


async def model_url_with_too_much(scene: Scene) -> None:
    ChatBackend("http://127.0.0.1:11434/v1/chat/completions")


async def file_of_another_server(scene: Scene) -> None:
    await scene.enter(LocalServer(scene.folder / "runs.db"))
    await scene.enter(LocalServer(scene.folder / "runs.db"))


async def open_to_the_network(scene: Scene) -> None:
    LocalServer(host="0.0.0.0")


async def server_not_opened(scene: Scene) -> None:
    AsyncClient(LocalServer().url)


_ALL: Final[list[Callable[[Scene], Awaitable[None]]]] = [
    no_base_url, base_url_without_scheme, base_url_with_a_key_in_it, base_url_without_v1,
    base_url_with_v1_twice, base_url_of_a_model, base_url_of_a_web_site, base_url_that_redirects,
    openai_itself, server_down, name_unknown, https_to_a_plain_port, http_to_a_tls_port,
    private_certificate, port_of_something_else, proxy_down, no_key, wrong_key,
    key_with_a_line_break, unknown_thread, ids_swapped, wait_without_a_thread, busy_thread,
    message_on_a_busy_thread, wait_too_short, tool_call_not_answered, tool_without_annotations,
    tool_in_place_of_a_list, run_expired, token_limit, model_down, model_unknown,
    model_url_without_v1, model_without_a_key, model_url_with_too_much, file_of_another_server,
    open_to_the_network, server_not_opened,
]  # fmt: skip
MISTAKES: Final = {each.__name__.replace("_", " "): each for each in _ALL}
"""What is done wrong, and how."""
