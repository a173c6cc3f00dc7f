"""The official package's async client: many runs at once, each on its own thread."""

import asyncio
import sys
import warnings

from openai import AsyncOpenAI, BadRequestError

warnings.simplefilter("ignore", DeprecationWarning)


async def one(client: AsyncOpenAI, assistant_id: str, number: int) -> None:
    """Run one thread to its end and check whose answer it is."""
    thread = await client.beta.threads.create()
    await client.beta.threads.messages.create(thread.id, role="user", content=f"number {number}")
    run = await client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant_id, poll_interval_ms=100
    )
    assert run.status == "completed", run
    page = await client.beta.threads.messages.list(thread.id, run_id=run.id)
    assert f"number {number}" in page.data[0].content[0].text.value


async def main() -> None:
    """Start twenty at once, and twenty on one thread."""
    async with AsyncOpenAI(
        base_url=sys.argv[1], api_key="sk-referee", _strict_response_validation=True, max_retries=0
    ) as client:
        assistant = await client.beta.assistants.create(model="gpt-4o")
        await asyncio.gather(*(one(client, assistant.id, number) for number in range(20)))
        thread = await client.beta.threads.create()
        creates = (
            client.beta.threads.runs.create(
                thread_id=thread.id,
                assistant_id=assistant.id,
                additional_messages=[{"role": "user", "content": "Use the tool f for x."}],
                tools=[
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {
                                "type": "object",
                                "properties": {"x": {"type": "string"}},
                                "required": ["x"],
                            },
                        },
                    }
                ],
            )
            for _ in range(20)
        )
        outcomes = await asyncio.gather(*creates, return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, BadRequestError)]
        assert len(refused) == 19, outcomes
        assert all("already has an active run" in one.message for one in refused)


asyncio.run(main())
print("ok")
