"""An id, a word or an option in the wrong place: the sentence says where it belongs."""

from __future__ import annotations

import pytest

from tests.cli.conftest import InProcess

SHOW = "`openai-runs threads show thread_1{0}` shows it, "
LIST = "`openai-runs runs list thread_1{0}` lists its runs"
OF_THREAD = f"'thread_1' is the id of a thread, and that of a run is needed: {SHOW}{LIST}"
OF_RUN = (
    "'run_1' is the id of a run, and that of a thread is needed: "
    "`openai-runs runs show run_1{0}` shows it"
)
OF_ASSISTANT = (
    "'asst_1' is the id of an assistant, and that of a thread is needed: "
    "`openai-runs assistants show asst_1{0}` shows it"
)
OF_MESSAGE = "'msg_1' is the id of a message, and that of a thread is needed"
ID_ALONE = "Write the id alone: `openai-runs {0}`"
OTHERS = {
    # A word that is no command.
    "map": "Available commands: demo, serve, worker, ask, chat, doctor, completion, runs, threads, "
    "assistants, export, import, batch",
    "runs sho": 'Did you mean "show"? Available commands: cancel, list, show, wait',
    "batch map": 'Unknown command "map". Available commands: run, status, table',
    # An id of another kind, where one is taken.
    "runs show thread_1 --db c.db": OF_THREAD.format(" --db c.db"),
    "runs wait thread_1 --base-url http://h/v1": OF_THREAD.format(" --base-url http://h/v1"),
    "runs cancel thread_1 --db c.db": OF_THREAD.format(" --db c.db"),
    "runs show run_2 --thread run_1 --db c.db": OF_RUN.format(" --db c.db"),
    "runs list run_1 --db c.db": OF_RUN.format(" --db c.db"),
    "runs list --thread run_1 --db c.db": OF_RUN.format(" --db c.db"),
    "threads show run_1 --db c.db": OF_RUN.format(" --db c.db"),
    "threads show asst_1 --db c.db": OF_ASSISTANT.format(" --db c.db"),
    "threads show msg_1 --db c.db": OF_MESSAGE,
    "assistants show thread_1 --db c.db": (
        "'thread_1' is the id of a thread, and that of an assistant is needed: "
        + (SHOW + LIST).format(" --db c.db")
    ),
    "ask x --thread asst_1 --db c.db": OF_ASSISTANT.format(" --db c.db"),
    "chat --thread run_1 --db c.db": OF_RUN.format(" --db c.db"),
    "export --out o --thread run_1 --db c.db": OF_RUN.format(" --db c.db"),
    # One where none is taken.
    "threads list thread_1 --db c.db": (
        "'thread_1' is the id of a thread, and `openai-runs threads list` takes none: "
        + (SHOW + LIST).format(" --db c.db")
    ),
    "assistants list asst_1": (
        "'asst_1' is the id of an assistant, and `openai-runs assistants list` takes none: "
        "`openai-runs assistants show asst_1` shows it"
    ),
    "thread_1 --db c.db": (
        "'thread_1' is the id of a thread, and no command: " + (SHOW + LIST).format(" --db c.db")
    ),
    "runs run_1": (
        "'run_1' is the id of a run, and no command: `openai-runs runs show run_1` shows it"
    ),
    # One that is an option.
    "runs show run_1 thread_1": "'thread_1' is the id of a thread: write --thread thread_1",
    "export --out o thread_1": "'thread_1' is the id of a thread: write --thread thread_1",
    "ask x asst_1": "'asst_1' is the id of an assistant: write --assistant asst_1",
    # An option that is an id.
    "threads show --thread thread_1": "--thread. " + ID_ALONE.format("threads show THREAD_ID"),
    "runs wait --id run_1": "--id. " + ID_ALONE.format("runs wait RUN_ID"),
    "assistants show --assistant-id asst_1": ID_ALONE.format("assistants show ASSISTANT_ID"),
    # Too much.
    "runs wait run_1 run_2": "unexpected 'run_2': `openai-runs runs wait` takes one id of a run",
    "runs list thread_1 --thread thread_2": "two threads are named, thread_1 and --thread thread_2",
    "ask two words": "unexpected 'words': TEXT is one argument; put it in quotes if it has blanks",
    "chat Hello": "unexpected 'Hello': `openai-runs chat` takes options alone",
    "serve models.toml": "unexpected 'models.toml': `openai-runs serve` takes options alone",
    "demo now": "unexpected 'now': `openai-runs demo` takes nothing",
    # None.
    "runs show": "RUN_ID is required: the run's id, as `openai-runs runs list` shows it",
    "threads show": "THREAD_ID is required: the thread's id, as `openai-runs threads list` shows",
}


@pytest.mark.parametrize(("command", "sentence"), OTHERS.items(), ids=OTHERS)
def test_sentence_says_where_it_belongs(command: str, sentence: str, in_process: InProcess) -> None:
    """With the server that was named, so that the command in it can be typed; nothing is asked."""
    done = in_process(*command.split())

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 2)
    assert sentence in done.err


@pytest.mark.parametrize("object_id", ["7f3c-9a", "run-1", "thread", "run_", "chatcmpl_1"])
def test_id_that_does_not_say_what_it_is_of_is_looked_for(
    object_id: str, in_process: InProcess
) -> None:
    """Ids of other servers may begin as they like."""
    done = in_process("threads", "show", object_id, "--base-url", "http://127.0.0.1:1/v1")

    assert done.code == 1
    assert "no connection to 127.0.0.1:1" in done.err
