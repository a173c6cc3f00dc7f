"""Arguments and help of `openai-runs ask`."""

from typing import Annotated

from cyclopts import Parameter

from openai_runs._cli.parsing.kinds import Seconds, Switch

__all__ = ["ask"]


def ask(
    text: Annotated[str | None, Parameter(name="TEXT")] = None,
    /,
    *,
    stdin: Annotated[bool, Parameter(name="-", negative="", show_default=False)] = False,
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    db: str | None = None,
    model: str | None = None,
    instructions: str | None = None,
    thread: str | None = None,
    assistant: str | None = None,
    timeout: Seconds = None,
    json: Switch = False,
) -> int:
    """Ask, and read the answer as it is written.

    The answer goes to standard output; ids, status and tokens to standard error.
    Without a server to ask, one is started inside this command, which repeats
    the text, or asks the model at --model-url.

        openai-runs ask "Hello!"
        openai-runs ask "Hello!" --model-url http://127.0.0.1:11434/v1 --model phi4
        git diff | openai-runs ask - --instructions "Review this change."
        openai-runs ask "And then?" --thread thread_... --db chat.db

    Exits with the code of the run's status. Whatever ends the command early, such
    as Ctrl-C or --timeout, has the server cancel the run.

    Args:
        text: What to ask; without it, standard input is read if it is no terminal.
        stdin: Read TEXT from standard input.
        base_url: Server to ask, up to /v1; else OPENAI_BASE_URL, if that is set.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        model_url: Chat-completions endpoint to ask instead: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        db: SQLite file to keep the thread in; where a server has it open, that is asked.
        model: Model to ask; else gpt-4o-mini, or echo where the text is repeated.
        instructions: Instructions to the model.
        thread: Go on with this thread of the server or the file.
        assistant: Ask this assistant; else one is made, and removed afterwards.
        timeout: Seconds after which the answer is given up.
        json: Print one line of JSON at the end in place of the text.
    """
    from openai_runs._cli.commands.ask import Question, perform
    from openai_runs._cli.connecting import Place

    return perform(
        Question(
            text=text,
            stdin=stdin,
            thread=thread,
            assistant=assistant,
            model=model,
            instructions=instructions,
            timeout=timeout,
            json=json,
            place=Place(
                base_url=base_url,
                api_key_env=api_key_env,
                db=db,
                model_url=model_url,
                model_key_env=model_key_env,
            ),
        )
    )
