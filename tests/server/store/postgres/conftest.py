"""Databases of PostgreSQL, and what stands before them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.store.postgres.proxying import PostgresProxy, proxied


@pytest.fixture
def proxy(postgres_db: str) -> Iterator[PostgresProxy]:
    """A proxy before a database without rows."""
    with proxied(postgres_db) as made:
        yield made
