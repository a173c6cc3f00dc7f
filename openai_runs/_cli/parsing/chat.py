"""Arguments and help of `openai-runs chat`."""

from typing import Annotated

from cyclopts import Parameter

__all__ = ["chat"]


def chat(
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    db: str | None = None,
    model: str | None = None,
    instructions: str | None = None,
    thread: str | None = None,
    assistant: str | None = None,
    tools: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> int:
    """Talk to an assistant, message by message.

    Ctrl-C stops the answer and cancels its run, Ctrl-D ends the chat; the last line says
    how to continue it. Piped, each line is a message, and a failure ends the chat.

        openai-runs chat --db chat.db
        openai-runs chat --model-url http://127.0.0.1:11434/v1 --model phi4
        openai-runs chat --base-url http://127.0.0.1:8080/v1 --tools orders:look_up

    Exits with 0 after Ctrl-D; piped, with the code of the last run's status.

    Args:
        base_url: Server to talk to, up to /v1; else OPENAI_BASE_URL, if that is set.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        model_url: Chat-completions endpoint to ask instead: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        db: SQLite file to keep the thread in; where a server has it open, that is asked.
        model: Model to ask; else gpt-4o-mini, or echo where the text is repeated.
        instructions: Instructions to the model.
        thread: Go on with this thread of the server or the file.
        assistant: Talk to this assistant; else one is made, and removed afterwards.
        tools: MODULE:FUNCTION that the model may call, from this folder or installed;
            repeatable.
    """
    from openai_runs._cli.commands.chat import Talk, perform
    from openai_runs._cli.connecting import Place

    return perform(
        Talk(
            thread=thread,
            assistant=assistant,
            model=model,
            instructions=instructions,
            tools=tuple(tools or ()),
            place=Place(
                base_url=base_url,
                api_key_env=api_key_env,
                db=db,
                model_url=model_url,
                model_key_env=model_key_env,
            ),
        )
    )
