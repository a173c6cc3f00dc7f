"""The server of `tests.cli.forking`: `python -m tests.cli.fork_server`, with a socket as input.

For each request it forks a process that waits for one command and reports how it ended; this one
forks that of the command, so that nobody reaps what another waits for. A request is one byte
with four descriptors: a socket for the report, and the command's standard streams. What else the
command gets is the first line on the socket for the report.

There is no thread, no event loop and no connection here when it forks. `random` is seeded anew in
each process; hashes are those of the server.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import struct
import sys
from contextlib import suppress

import coverage

__all__ = ["INT"]

INT = struct.Struct("i")
"""What is reported: the number of the process, then its exit code."""


def main() -> None:
    """Be the server, and each process that it forks."""
    commands = importlib.import_module("openai_runs._cli.commands")
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(module.name)
    importlib.import_module("openai_runs._cli.app")
    gc.collect()
    gc.freeze()  # or each process copies all of it when it looks for garbage
    with socket.socket(fileno=os.dup(0)) as control:
        while ends := socket.recv_fds(control, 1, 4)[1]:
            _reap()
            if os.fork() == 0:
                break
            for end in ends:
                os.close(end)
        else:
            return _reap()
    return _run(*ends)


def _reap() -> None:
    with suppress(ChildProcessError):  # there is none
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(status: int, *ends: int) -> None:
    """Fork the process of one command, wait for it in this one, and report how it ended."""
    with socket.socket(fileno=status) as reports:
        arguments, folder, env = json.loads(reports.makefile().readline())
        if pid := os.fork():
            for end in ends:
                os.close(end)
            reports.sendall(INT.pack(pid))
            _, ended = os.waitpid(pid, 0)
            reports.sendall(INT.pack(os.waitstatus_to_exitcode(ended)))
            os._exit(0)
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    coverage.process_startup()  # if the environment asks for it
    runpy.run_module("openai_runs", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
