"""Arguments and help of `openai-runs assistants`."""

from pathlib import Path

from openai_runs._cli.parsing.kinds import PageSize, Switch, Tools

__all__ = [
    "create_assistant",
    "delete_assistant",
    "list_assistants",
    "show_assistant",
    "update_assistant",
]


def create_assistant(
    *,
    model: str,
    name: str | None = None,
    instructions: str | None = None,
    instructions_file: Path | None = None,
    tools: Tools = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Create an assistant, and print its id.

    The id goes to standard output, the command that asks the assistant to standard error.

        openai-runs assistants create --model phi4 --db chat.db
        openai-runs assistants create --model phi4 --instructions-file support.md
        openai-runs assistants create --model phi4 --tools orders.py:look_up

    Args:
        model: Model that answers.
        name: Name of the assistant, for people.
        instructions: Instructions to the model.
        instructions_file: File with the instructions, in UTF-8.
        tools: MODULE:FUNCTION or FILE.py:FUNCTION that the model may call; repeatable. The server
            gets its definition: whoever asks the assistant names the function again.
        base_url: Server that keeps it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: SQLite file to keep it in; where a server has it open, that is asked.
        json: Print one line of JSON: the assistant, as the API has it.
    """
    from openai_runs._cli.commands import assistants
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return assistants.create(
        assistants.Draft(
            model=model,
            name=name,
            instructions=instructions,
            instructions_file=instructions_file,
            tools=tuple(tools or ()),
            json=json,
            place=place,
        )
    )


def list_assistants(
    *,
    limit: PageSize = 20,
    after: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """List assistants, the newest first.

        openai-runs assistants list --db chat.db
        openai-runs assistants list --json | jq -r '.data[].id'

    Args:
        limit: Assistants to list, 100 at most.
        after: Go on after this assistant, the last one of the list before.
        base_url: Server that has them, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package instead.
        json: Print one line of JSON: the page, as the API has it.
    """
    from openai_runs._cli.commands import lists
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return lists.list_assistants(lists.Listing(limit=limit, after=after, json=json, place=place))


def show_assistant(
    assistant_id: str,
    /,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Show an assistant: its model, its tools and its instructions.

        openai-runs assistants show asst_... --db chat.db

    Args:
        assistant_id: The assistant's id, as `openai-runs assistants list` shows it.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package instead.
        json: Print one line of JSON: the assistant, as the API has it.
    """
    from openai_runs._cli.commands import assistants
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return assistants.show(assistant_id, place, as_json=json)


def update_assistant(
    assistant_id: str,
    /,
    *,
    model: str | None = None,
    name: str | None = None,
    instructions: str | None = None,
    instructions_file: Path | None = None,
    tools: Tools = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Change an assistant; what is not given stays as it is.

    Runs that exist keep the settings they were created with.

        openai-runs assistants update asst_... --model phi4 --db chat.db
        openai-runs assistants update asst_... --instructions-file support.md

    Args:
        assistant_id: The assistant's id, as `openai-runs assistants list` shows it.
        model: Model that answers.
        name: Name of the assistant, for people.
        instructions: Instructions to the model.
        instructions_file: File with the instructions, in UTF-8.
        tools: MODULE:FUNCTION or FILE.py:FUNCTION that the model may call, in place of all tools
            before; repeatable.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Change it in this file of a server of this package instead.
        json: Print one line of JSON: the assistant, as the API has it.
    """
    from openai_runs._cli.commands import assistants
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    draft = assistants.Draft(
        model=model,
        name=name,
        instructions=instructions,
        instructions_file=instructions_file,
        tools=tuple(tools or ()),
        json=json,
        place=place,
    )
    return assistants.update(assistant_id, draft)


def delete_assistant(
    assistant_id: str,
    /,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    json: Switch = False,
) -> int:
    """Delete an assistant, for good; its threads and runs stay.

        openai-runs assistants delete asst_... --db chat.db

    Args:
        assistant_id: The assistant's id, as `openai-runs assistants list` shows it.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Delete it from this file of a server of this package instead.
        json: Print one line of JSON: what the API answers.
    """
    from openai_runs._cli.commands import assistants
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return assistants.delete(assistant_id, place, as_json=json)
