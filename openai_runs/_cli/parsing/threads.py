"""Arguments and help of `openai-runs threads`."""

from openai_runs._cli.parsing.kinds import PageSize, Switch

__all__ = ["list_threads", "show_thread"]


def list_threads(
    *,
    limit: PageSize = 20,
    after: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """List the threads of a server, the newest first.

    Not every server does: ours and Azure AI Foundry do.

        openai-runs threads list --db runs.db
        openai-runs threads list --limit 100 --json | jq -r '.data[].id'

    Args:
        limit: Threads to list, 100 at most.
        after: Go on after this thread, the last one of the list before.
        base_url: Server that has them, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package, or postgresql://HOST/NAME, instead.
        json: Print one line of JSON: the page, as the API has it.
    """
    from openai_runs._cli.commands import lists
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return lists.list_threads(lists.Listing(limit=limit, after=after, json=json, place=place))


def show_thread(
    thread_id: str,
    /,
    *,
    limit: PageSize = 20,
    after: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Show a thread with its last messages.

    The oldest of them comes first, as they are read, each with the run that wrote it.

        openai-runs threads show thread_... --db runs.db

    Args:
        thread_id: The thread's id, as `openai-runs threads list` shows it.
        limit: Messages to show, 100 at most.
        after: Show those before this message, the oldest one that was shown.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package, or postgresql://HOST/NAME, instead.
        json: Print one line of JSON: the thread, and the page of messages, newest first.
    """
    from openai_runs._cli.commands import lists
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    listing = lists.Listing(thread_id=thread_id, limit=limit, after=after, json=json, place=place)
    return lists.show_thread(listing)
