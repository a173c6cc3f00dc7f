"""Arguments and help of `openai-runs runs`."""

from typing import TYPE_CHECKING

from openai_runs._cli.ending import USAGE, Stop
from openai_runs._cli.parsing.kinds import PageSize, Seconds, Switch

if TYPE_CHECKING:
    from openai_runs._cli.commands.target import Target

__all__ = ["cancel", "list_runs", "show", "wait"]


def show(
    run_id: str,
    /,
    *,
    thread: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Show a run with its steps and the messages it wrote.

    Exits with 0 if it could be shown, whatever its status is.

        openai-runs runs show run_... --db runs.db
        openai-runs runs show run_... --thread thread_... --json | jq .run.status

    Args:
        run_id: The run's id, as `openai-runs runs list` shows it.
        thread: Id of its thread; needed where the server does not list all runs.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package, or postgresql://HOST/NAME, instead.
        json: Print one line of JSON: run, steps, messages, as the server sent them.
    """
    from openai_runs._cli.commands import runs

    target = _target(run_id, thread=thread, base_url=base_url, api_key_env=api_key_env, db=db)
    return runs.show(target, as_json=json)


def wait(
    run_id: str,
    /,
    *,
    thread: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    timeout: Seconds = None,
    json: Switch = False,
) -> int:
    """Wait until a run has ended or requires action, and exit with the code of its status.

    The run itself is left alone: neither Ctrl-C nor --timeout cancels it.

        openai-runs runs wait run_... --thread thread_... --timeout 60 && echo done

    Args:
        run_id: The run's id, as `openai-runs runs list` shows it.
        thread: Id of its thread; needed where the server does not list all runs.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Ask the server that has this file open instead, or postgresql://HOST/NAME.
        timeout: Seconds to wait at most; else what the run has left.
        json: Print the run as one line of JSON, as the server sent it.
    """
    from openai_runs._cli.commands import runs

    target = _target(run_id, thread=thread, base_url=base_url, api_key_env=api_key_env, db=db)
    return runs.wait(target, timeout=timeout, as_json=json)


def list_runs(
    thread_id: str | None = None,
    /,
    *,
    thread: str | None = None,
    limit: PageSize = 20,
    after: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """List runs, the newest first.

    Of one thread, or of all where the server lists them, as ours does.

        openai-runs runs list --db runs.db
        openai-runs runs list thread_... --json | jq -r '.data[].status'

    Args:
        thread_id: List the runs of this thread only.
        thread: The same, as an option.
        limit: Runs to list, 100 at most.
        after: Go on after this run, the last one of the list before.
        base_url: Server that has them, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package, or postgresql://HOST/NAME, instead.
        json: Print one line of JSON: the page, as the API has it.
    """
    from openai_runs._cli.commands import lists
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    if thread_id is not None and thread not in {None, thread_id}:
        sentence = f"two threads are named, {thread_id} and --thread {thread}: name one"
        raise Stop(sentence, USAGE)
    return lists.list_runs(
        lists.Listing(
            thread_id=thread_id or thread, limit=limit, after=after, json=json, place=place
        )
    )


def cancel(
    run_id: str,
    /,
    *,
    thread: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    timeout: Seconds = None,
    json: Switch = False,
) -> int:
    """Cancel a run, and wait until it has ended.

    Exits with 0 if it was cancelled, with 1 if it had ended otherwise before.

        openai-runs runs cancel run_... --thread thread_...

    Args:
        run_id: The run's id, as `openai-runs runs list` shows it.
        thread: Id of its thread; needed where the server does not list all runs.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Ask the server that has this file open instead, or postgresql://HOST/NAME.
        timeout: Seconds to wait at most; else what the run has left.
        json: Print the run as one line of JSON, as the API has it.
    """
    from openai_runs._cli.commands.cancel import cancel

    target = _target(run_id, thread=thread, base_url=base_url, api_key_env=api_key_env, db=db)
    return cancel(target, timeout=timeout, as_json=json)


def _target(
    run_id: str,
    *,
    thread: str | None,
    base_url: str | None,
    api_key_env: str | None,
    db: str | None,
) -> "Target":
    from openai_runs._cli.commands.target import Target
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return Target(run_id=run_id, thread_id=thread, place=place)
