"""Arguments and help of `openai-runs export` and `import`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from openai_runs._cli.parsing.kinds import Switch

__all__ = ["export", "import_archive"]


def export(
    *,
    out: Path,
    base_url: str | None = None,
    api_key_env: str | None = None,
    token_command: str | None = None,
    api_version: str | None = None,
    db: str | None = None,
    thread: Annotated[list[str] | None, Parameter(negative="")] = None,
    threads_file: Path | None = None,
    form: Annotated[Literal["responses"] | None, Parameter(name="--as")] = None,
) -> int:
    """Write all threads of a server into a folder, as they are.

    Assistants, threads, messages, runs and steps, as JSON lines: what a server
    of this protocol has, and nothing else has taken out of it. The same command
    goes on where it was cut short, and brings an older export up to date.

        openai-runs export --out archive --base-url http://127.0.0.1:8080/v1
        openai-runs export --out archive --db runs.db

    Exits with 1 if a thread could not be exported; the command tries it again.

    Args:
        out: Folder, made if it is not there.
        base_url: Server to export from, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        token_command: Command that prints a bearer token; asked again as tokens expire.
        api_version: The server is Azure AI Foundry (classic), and wants this: v1.
        db: Export from this file of a server of this package, or postgresql://HOST/NAME.
        thread: Export this thread only; repeatable. Needed where the server lists none.
        threads_file: File with the id of a thread on each line.
        form: responses: write each thread as input items of the Responses API, too.
    """
    from openai_runs._cli.commands.archive import Export, perform_export
    from openai_runs._cli.connecting import Place

    place = Place(
        base_url=base_url,
        api_key_env=api_key_env,
        db=db,
        api_version=api_version,
        token_command=token_command,
    )
    threads = tuple(thread or ())
    return perform_export(
        Export(out=out, threads=threads, threads_file=threads_file, form=form, place=place)
    )


def import_archive(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: str | None = None,
    dry_run: Switch = False,
) -> int:
    """Give a server of this package all threads of an export.

    Ids, order and times stay as they were. What is there already is passed over,
    so a second time does no harm; what is there with other content is a conflict,
    and stays as it is.

        openai-runs import archive --base-url http://127.0.0.1:8080/v1 --dry-run
        openai-runs import archive --db runs.db

    Exits with 1 if anything was left out; the list says what, and why.

    Args:
        folder: Folder of an export, or of files with a thread each.
        base_url: Server to import into, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Import into this file of a server of this package, or postgresql://HOST/NAME.
        dry_run: Check everything, and write nothing.
    """
    from openai_runs._cli.commands.archive import Import, perform_import
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return perform_import(Import(folder=folder, dry_run=dry_run, place=place))
