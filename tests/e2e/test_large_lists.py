"""Lists of large objects: our client reads every page that our server sends."""

from __future__ import annotations

from openai_runs import AsyncClient
from openai_runs.config import MAX_PAGE_BYTES


async def test_messages_with_pictures_in_them_are_walked(runs_client: AsyncClient) -> None:
    """As many as no client would read at once, with the default limit and with the largest."""
    thread = await runs_client.threads.create()
    picture = "data:image/png;base64," + "A" * 2_000_000
    ids = [
        (await runs_client.messages.create(thread.id, role="user", content=picture)).id
        for _ in range(18)
    ]

    page = await runs_client.messages.list(thread.id)
    walked = [message.id async for message in runs_client.messages.list(thread.id, order="asc")]
    backwards = [
        message.id
        async for message in runs_client.messages.list(
            thread.id, order="asc", limit=100, before=ids[-1]
        )
    ]

    assert [message.id for message in page.data] == ids[:-9:-1]
    assert page.has_more
    assert walked == ids
    assert backwards == ids[-2::-1]


async def test_object_that_fills_a_page_is_a_page_of_its_own(runs_client: AsyncClient) -> None:
    """However large it is, a list is never stuck at it."""
    thread = await runs_client.threads.create()
    sizes = (10, MAX_PAGE_BYTES - 10_000, 20_000)
    for size in sizes:
        await runs_client.messages.create(thread.id, role="user", content="x" * size)

    listed = runs_client.messages.list(thread.id, order="asc")
    pages = [[len(message.text) for message in page.data] async for page in listed.pages()]

    assert [size for page in pages for size in page] == [*sizes]
    assert len(pages) > 1
