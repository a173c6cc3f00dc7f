"""Which run a command is about, and the search for its thread where only the run is named."""

from typing import Any

import msgspec

from openai_runs import AsyncClient, BadRequestError, NotFoundError
from openai_runs._cli.connecting import Place, check_ids, check_server
from openai_runs._cli.ending import Stop

__all__ = ["Target"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which run, and where it is."""

    run_id: str
    thread_id: str | None
    """None: the server is asked for it."""
    place: Place

    def check(self) -> None:
        """Refuse what can lead to no run, before anything is sent.

        Raises:
            Stop: An id is none, or no server is named.
        """
        check_ids(self.place, run_id=self.run_id, thread_id=self.thread_id)
        check_server(self.place)

    async def thread_of(self, client: AsyncClient) -> str:
        """Return the id of the run's thread.

        Raises:
            Stop: The server does not list the runs of all threads, or has no such run.
        """
        if self.thread_id is not None:
            return self.thread_id
        try:
            # No server has `GET /runs/{id}`: the run stands just before the next older one.
            older = (await _one(client, after=self.run_id)).get("id")
            place = {"before": older} if older else {"order": "asc"}
            found = await _one(client, **place)
        except NotFoundError as error:
            sentence = (
                "--thread is required, as this server does not list the runs of all threads: "
                f"name the thread of {self.run_id}; it is `thread_id` of the run"
            )
            raise Stop(sentence) from error
        except BadRequestError as error:
            if error.param != "after":
                raise
            raise self._missing() from error
        thread_id = found.get("thread_id")
        if found.get("id") != self.run_id or not isinstance(thread_id, str):
            raise self._missing()
        return thread_id

    def _missing(self) -> Stop:
        options = self.place.options()
        sentence = (
            f"no run '{self.run_id}' is there; list those that are: openai-runs runs list{options}"
        )
        return Stop(sentence)


async def _one(client: AsyncClient, **query: str) -> dict[str, Any]:
    """Return the run that the list of all runs has at this place; an empty dict if none."""
    page = await client.request("GET", "/runs", query={"limit": 1, **query})
    runs = page.get("data")
    first = runs[0] if isinstance(runs, list) and runs else {}
    return first if isinstance(first, dict) else {}
