"""In a notebook an answer is Markdown, and a text of the server starts no markup there."""

import pytest
from markdown_it import MarkdownIt

from openai_runs import Page, Run, Thread
from openai_runs._client.flows.results import RunResult
from openai_runs._printing import inline
from openai_runs.types import FunctionCall, RequiredToolCall, RunLastError, Usage
from openai_runs.types.runs import RequiredAction, SubmitToolOutputsAction
from tests.test_printing import a_message

USAGE = Usage(prompt_tokens=1000, completion_tokens=200, total_tokens=1200)
RUN = Run(id="run_1", thread_id="thread_1", status="completed", model="phi4", usage=USAGE)
FAILED = Run(
    id="run_1",
    thread_id="thread_1",
    status="failed",
    last_error=RunLastError(code="server_error", message="<b>no\nmodel</b>"),
)
CALL = RequiredToolCall(id="call_1", function=FunctionCall(name="add", arguments="{}"))
WAITING = Run(
    id="run_1",
    thread_id="thread_1",
    status="requires_action",
    required_action=RequiredAction(
        kind="submit_tool_outputs",
        submit_tool_outputs=SubmitToolOutputsAction(tool_calls=[CALL]),
    ),
)
SHOWN = {
    "run": (
        RUN,
        "**Run: completed**\n\n- id: run\\_1\n- thread: thread\\_1\n- model: phi4\n- tokens: 1200",
    ),
    "run-failed": (
        FAILED,
        (
            "**Run: failed**\n\n- id: run\\_1\n- thread: thread\\_1\n"
            "- error: server\\_error: \\<b\\>no model\\</b\\>"
        ),
    ),
    "run-waiting": (
        WAITING,
        (
            "**Run: requires\\_action**\n\n- id: run\\_1\n- thread: thread\\_1\n"
            "- waits for the output of: add"
        ),
    ),
    "result": (
        RunResult(run=RUN, messages=[a_message("It is **42**.")], steps=[]),
        "**completed**, run\\_1, 1,200 tokens\n\nIt is **42**.",
    ),
    "result-failed": (
        RunResult(run=FAILED, messages=[], steps=[]),
        "**failed**, run\\_1, server\\_error: \\<b\\>no model\\</b\\>",
    ),
    "page": (
        Page(data=[Thread(id="thread_1")], has_more=True),
        (
            "**Page** of 1 item, and more follow: `await page.next_page()`\n\n"
            "| id |\n| --- |\n| thread\\_1 |"
        ),
    ),
    "page-messages": (
        Page(data=[a_message("a|b\nc"), a_message("x" * 99)]),
        (
            "**Page** of 2 items\n\n| id | status | role | text |\n| --- | --- | --- | --- |\n"
            f"| msg\\_1 | completed | assistant | a\\|b c |\n"
            f"| msg\\_1 | completed | assistant | {'x' * 69}... |"
        ),
    ),
    "page-empty": (Page(data=[]), "**Page** of 0 items"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_answer_is_shown_in_a_notebook(name: str) -> None:
    """What it is and how it is, then a list, a table, or the text of the model."""
    value, text = SHOWN[name]

    assert value._repr_markdown_() == text  # type: ignore[attr-defined]  # all of them have it


@pytest.mark.parametrize(
    "text", ["<script>1</script>", "[a](b)", "*a*", "`a`", "a|b", "# a", "&lt;", "$x$", "a_b_c"]
)
def test_text_of_the_server_starts_no_markup(text: str) -> None:
    """A name, an id or an error is shown as it was sent."""
    rendered = MarkdownIt("commonmark").enable("table").parse(f"x {inline(text)}")
    kinds = {token.type for part in rendered for token in part.children or ()}
    words = "".join(token.content for part in rendered for token in part.children or ())

    assert kinds <= {"text", "text_special"}
    assert words == f"x {text}"
