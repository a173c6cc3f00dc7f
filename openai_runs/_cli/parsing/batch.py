"""Arguments and help of `openai-runs batch`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openai_runs._cli.parsing.kinds import Count, Limit, Switch, Tools
from openai_runs.config import BATCH_CONCURRENCY

__all__ = ["batch_run", "batch_status", "batch_table"]


def batch_run(
    source: Annotated[Path, Parameter(name="IN")],
    /,
    *,
    out: Path,
    checkpoint: Path,
    errors: Path | None = None,
    prompt: str | None = None,
    template: Path | None = None,
    id_column: str | None = None,
    assistant: str | None = None,
    model: str | None = None,
    instructions: str | None = None,
    tools: Tools = None,
    concurrency: Count = BATCH_CONCURRENCY,
    rpm: Limit = None,
    retry_failed: Switch = False,
    max_failures: Limit = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    db: str | None = None,
) -> int:
    """Start a run for each line of a file, and write what comes of it.

    After a crash or a kill the same command goes on: no run is created twice.
    Ctrl-C finishes the lines in progress; a second one leaves them to the next start.

        openai-runs batch run in.jsonl --out out.jsonl --checkpoint b.db
        openai-runs batch run a.csv --prompt "Sum up: {text}" --model gpt-4o
            --out a.jsonl --checkpoint a.db

    Exits with 0 if all lines completed, with 4 if some failed.

    Args:
        source: JSON lines in the form of the vendor's Batch API, or CSV with --prompt.
        out: File for the lines of completed runs.
        checkpoint: File that knows what was done; made if it is not there.
        errors: File for the lines of all others; else beside OUT, as NAME.errors.jsonl.
        prompt: Message of each row of a CSV, with {column} for a value.
        template: JSON file with the whole body of each row, in place of --prompt.
        id_column: Column of a CSV that names its rows; else custom_id, or the line.
        assistant: Assistant of lines that name none.
        model: Model of an assistant that is made once for them instead.
        instructions: Instructions of the one that is made.
        tools: MODULE:FUNCTION or FILE.py:FUNCTION that answers tool calls of the runs; repeatable.
        concurrency: Lines in progress at most.
        rpm: HTTP requests a minute at most, of all lines together; a line takes four or more.
        retry_failed: Retry what failed for a reason that may pass, also in earlier starts.
        max_failures: Failures after which no further line is begun.
        base_url: Server to send to, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        model_url: Chat-completions endpoint that answers, with --db.
        model_key_env: Environment variable that holds the key of that endpoint.
        db: SQLite file of a server inside of this command.
    """
    from openai_runs._cli.commands.batch import Job, carry_out_job
    from openai_runs._cli.connecting import Place

    return carry_out_job(
        Job(
            source=source,
            out=out,
            checkpoint=checkpoint,
            errors=errors,
            prompt=prompt,
            template=template,
            id_column=id_column,
            assistant=assistant,
            model=model,
            instructions=instructions,
            tools=tuple(tools or ()),
            concurrency=concurrency,
            rpm=rpm,
            retry_failed=retry_failed,
            max_failures=max_failures,
            place=Place(
                base_url=base_url,
                api_key_env=api_key_env,
                db=db,
                model_url=model_url,
                model_key_env=model_key_env,
            ),
        )
    )


def batch_status(checkpoint: Annotated[Path, Parameter(name="FILE")], /) -> int:
    """Show how far a batch has come, also while it is at work.

    Reads the checkpoint alone: no server is asked.

        openai-runs batch status batch.db

    Args:
        checkpoint: The checkpoint file.
    """
    from openai_runs._cli.commands.batch import show_status

    return show_status(checkpoint)


def batch_table(
    checkpoint: Annotated[Path, Parameter(name="FILE")], /, *, rows: Path | None = None
) -> int:
    """Print the results of a batch as CSV, for a spreadsheet, also while it is at work.

    Each has its text as `answer`; `error` says why a line did not complete, and `status`
    whether it did: completed, failed or pending.

        openai-runs batch table a.db --rows tickets.csv > answers.csv

    Args:
        checkpoint: The checkpoint file.
        rows: CSV file of the batch: its rows, in their order, each with its answer.
    """
    from openai_runs._cli.commands.batch_table import print_table

    return print_table(checkpoint, rows)
