"""A run that is streamed to a person: what is shown of it."""

from openai_runs import RunError, RunResult, RunWaitTimeout
from openai_runs._cli.outputs import say
from openai_runs._cli.terminal.answer import AnswerDisplay
from openai_runs._client.streams.run_stream import RunStream

__all__ = ["activity_of", "pass_on", "show_rest"]


def activity_of(stream: RunStream | None) -> str:
    """Return what is done now; an empty text where nothing is."""
    if stream is None or stream.run is None:
        return "connecting"
    if stream.is_reconnecting:
        return "reconnecting"
    if stream.run.tool_calls:
        return f"calling {', '.join(call.function.name for call in stream.run.tool_calls)}"
    return "" if stream.run.is_terminal else "thinking"


async def pass_on(stream: RunStream, display: AnswerDisplay) -> RunResult:
    """Write the words as they come; return the result, whatever the run's status is.

    Raises:
        OpenAIRunsError: There is no result.
        Closed: Nobody reads standard output any more.
        Stop: It cannot be written.
    """
    try:
        async for piece in stream.text_deltas():
            await display.write(piece)
    except RunWaitTimeout:
        raise
    except RunError:
        pass  # a run that did not complete: its status is shown when all is written
    return await stream.result()


async def show_rest(result: RunResult, display: AnswerDisplay) -> None:
    """Write what the stream did not bring: nothing, unless the server crashed meanwhile."""
    written = display.text
    if written.split() == result.text.split():
        await display.end_line()
        return
    if written:
        await display.end_line()
        display.stop()
        say("the server began the answer anew; this is all of it:")
    await display.write(result.text)
    await display.end_line()
