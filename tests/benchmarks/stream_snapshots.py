"""Time per event of a streamed message of many deltas, ours beside the official client's.

    poe referees && python tests/benchmarks/stream_snapshots.py [--deltas 20000] [--rounds 5]

One server in a process of its own sends the same bytes to each; each client runs in a fresh
process and keeps a snapshot of the message, as its stream helper does. Rounds are
interleaved, and the text of each is checked, so that nobody wins by skipping work. The
figures are CPU seconds of the client's process; compare those of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from tests.client.broadcaster import HEAD, Broadcaster  # noqa: E402

OURS = """
import asyncio, sys, time
from openai_runs import AsyncClient

async def main():
    async with AsyncClient(base_url=sys.argv[1], api_key="k") as client:
        for _ in range(2):
            began = time.process_time()
            async with client.runs.stream("thread_1", assistant_id="a") as stream:
                events = 0
                async for event in stream:
                    events += 1
            spent = time.process_time() - began
    print(spent / events * 1e6, len(stream.snapshot.text))

asyncio.run(main())
"""
OFFICIAL = """
import asyncio, sys, time, warnings
warnings.simplefilter("ignore")
from openai import AsyncOpenAI

async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="k")
    for _ in range(2):
        began = time.process_time()
        runs = client.beta.threads.runs
        async with runs.stream(thread_id="thread_1", assistant_id="a") as stream:
            events = 0
            async for event in stream:
                events += 1
            messages = await stream.get_final_messages()
        spent = time.process_time() - began
    print(spent / events * 1e6, len(messages[0].content[0].text.value))

asyncio.run(main())
"""


async def serve(deltas: int) -> None:
    """Send the same stream to whoever asks, and print the address first."""
    told = Broadcaster([f"word{number} " for number in range(deltas)])
    answer = HEAD + f"Content-Length: {len(told.stream)}\r\n\r\n".encode() + told.stream

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    print(len(told.text), flush=True)
    await server.serve_forever()


def measured(python: str, script: str, url: str, length: str) -> float:
    """Return the microseconds of CPU per event that one client took."""
    done = subprocess.run(
        [python, "-c", script, url], capture_output=True, text=True, check=True, cwd=ROOT
    )
    spent, said = done.stdout.split()
    if said != length:
        message = f"the text has {said} characters in place of {length}"
        raise SystemExit(message)
    return float(spent)


def main() -> None:
    """Measure in turns, and print the medians beside each other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--deltas", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        asyncio.run(serve(chosen.deltas))
        return
    clients = {"ours": (sys.executable, OURS)}
    for environment in sorted((ROOT / ".referees").glob("*/bin/python")):
        clients[f"official ({environment.parent.parent.name})"] = (str(environment), OFFICIAL)
    command = [sys.executable, __file__, "--serve", "--deltas", str(chosen.deltas)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, length = server.stdout.readline().strip(), server.stdout.readline().strip()
        rounds = [
            {name: measured(*client, url, length) for name, client in clients.items()}
            for _ in range(chosen.rounds)
        ]
        server.terminate()
    print(f"{chosen.deltas} deltas, Python {platform.python_version()}, CPU per event in us")
    ours = statistics.median(one["ours"] for one in rounds)
    for name in clients:
        figures = sorted(one[name] for one in rounds)
        middle = statistics.median(figures)
        shown = {"min": figures[0], "median": middle, "max": figures[-1], "ratio": middle / ours}
        print(f"{name:24}", json.dumps({key: round(value, 2) for key, value in shown.items()}))


if __name__ == "__main__":
    main()
