"""What holds for every test: a clean environment and an event loop that is never blocked."""

import gc
import logging
import os
from collections.abc import Callable, Iterator

import pytest
from blockbuster import BlockBuster
from coverage import Coverage
from hypothesis import settings

pytest_plugins = [
    "openai_runs.testing",
    "tests.canaries",
    "tests.databases",
    "tests.measuring",
]

# No deadline for an example, since no test asserts timing.
settings.register_profile("short", deadline=None, max_examples=30)
settings.register_profile("long", deadline=None, max_examples=5000)


def pytest_configure() -> None:
    """Mend aioresponses for aiohttp 3.14 before a test uses it."""
    # Here and not above: pytest rewrites the asserts of a plugin that nobody has imported yet.
    from openai_runs.testing import repair_aioresponses

    repair_aioresponses()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `--numprocesses=auto`: two a core and one, since many tests wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 2 * (cores or 1) + 1


def pytest_collection() -> None:
    """Look for no garbage among what is only made: each look goes through all of it."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Spare the garbage collector the tests themselves: many of them have it look for leaks."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def young_heap() -> None:
    """Spare it what earlier modules left as well, which would make each look far slower."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def pristine_loggers() -> None:
    """Have our loggers as at import: commands set levels and filters, as in a process of theirs."""
    for name in ("openai_runs", "openai_runs.client"):
        logger = logging.getLogger(name)
        logger.disabled = False
        logger.filters.clear()
        logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, endpoint or version of the developer's own reaches a test; the key is a canary."""
    from tests.canaries import CANARY_KEY  # not above: pytest has to import its plugin itself

    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY_KEY)


@pytest.fixture(autouse=True)
def unmeasured_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure coverage in processes that run the command line only.

    It makes them a third slower; the others are killed, or run what tests run in this process too.
    """
    from tests.measuring import is_measured  # not above: pytest has to import its plugin itself

    if "cli" not in request.path.parts or not is_measured(request.path):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True, scope="session")
def blockbuster() -> Iterator[BlockBuster]:
    """A blocking call of ours on a running event loop is an error; nothing of ours is exempt.

    Set up once, since that takes longer than most tests of pure functions.
    """
    blocker = BlockBuster("openai_runs")
    acquire = blocker.functions["threading.Lock.acquire"]
    acquire.can_block_predicate = _but_for_coverage(acquire.can_block_predicate)
    blocker.activate()
    yield blocker
    blocker.deactivate()


def _but_for_coverage(was_not_sent: Callable[..., bool]) -> Callable[..., bool]:
    # Who measures coverage takes a lock of its own in each thread, the event loop's too. It is
    # taken from C, so that no frame tells whose it is.
    measuring = Coverage.current()
    collector = measuring and measuring._collector
    lock = collector and collector.data_lock

    def is_excused(taken: object, *arguments: object, **options: object) -> bool:
        return taken is lock or was_not_sent(taken, *arguments, **options)

    return is_excused
