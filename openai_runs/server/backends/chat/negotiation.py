"""Negotiation: the request of each attempt of a model call, and what is learnt from a refusal.

An endpoint that refuses a form is asked again in another one, and with `truncation_strategy:
auto` one whose context is full is asked with fewer messages. What was learnt is remembered for
the endpoint and the model once a request was accepted, so the next call begins with it.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from openai_runs.config import MAX_FORM_CHANGES, MAX_KNOWN_MODELS, MAX_TRUNCATIONS
from openai_runs.server.backends.base import ModelFailure, ModelRequest
from openai_runs.server.backends.chat.forms import (
    DEFAULTS,
    Forms,
    Refusal,
    check_forms,
    other_forms,
)
from openai_runs.server.backends.chat.request import build_request
from openai_runs.server.backends.chat.truncation import (
    is_context_full,
    kept_share,
    shortened,
)

__all__ = ["KnownForms", "Negotiation"]

_HINT: Final = " A run's truncation_strategy of the type 'last_messages' sends fewer messages."

_HALF: Final = 0.5
_ADDING: Final = frozenset({"opening", "closing"})
"""Forms that add a message only where one is missing, so another row may be needed beside them."""

_logger = logging.getLogger("openai_runs.server")


class KnownForms:
    """What is known of an endpoint: the forms set beforehand, and what was learnt of each model.

    Args:
        url: Where it is; a log line names its host.
        given: Forms set beforehand; see `forms.py`.
    """

    def __init__(self, url: str, given: Forms | None = None) -> None:
        """Start with what is set beforehand.

        Raises:
            ConfigError: There is no such form.
        """
        self._endpoint = urlsplit(url).netloc.rpartition("@")[2]
        self._given = {**DEFAULTS, **check_forms(given)}
        self._learnt: dict[str, dict[str, str]] = {}

    def of(self, model: str) -> dict[str, str]:
        """Return the forms that a model takes, as far as they are known."""
        return {**self._given, **self._learnt.get(model, {})}

    def learn(self, model: str, changes: Forms) -> None:
        """Remember forms that were accepted; each new one is a line of the log."""
        known = self.of(model)
        new = {name: form for name, form in changes.items() if known.get(name) != form}
        if not new:
            return
        self._learnt[model] = {**self._learnt.pop(model, {}), **new}
        while len(self._learnt) > MAX_KNOWN_MODELS:
            self._learnt.pop(next(iter(self._learnt)))
        for name, form in new.items():
            _logger.info(
                "the endpoint %s takes %r of the model %r only in the form %r; "
                "the setting forms = {%r: %r} says so beforehand",
                self._endpoint,
                name,
                model,
                form,
                name,
                form,
            )


class Negotiation:
    """The request of one model call, through all its attempts.

    Args:
        request: What is asked.
        model: What to call the model there.
        known: What is known of the endpoint.
    """

    def __init__(self, request: ModelRequest, model: str, known: KnownForms) -> None:
        """Start with what is known."""
        self._request = request
        self._model = model
        self._known = known
        self._changes: dict[str, str] = {}
        self._tried: set[tuple[str, str]] = set()
        self._form_changes = 0
        self._truncations = 0
        self._last: tuple[str, dict[str, str]] = ("", {})
        """The last refusal, and the changes before it."""
        self._is_full = False
        self._sent_forms = self._forms

    @property
    def _forms(self) -> dict[str, str]:
        return {**self._known.of(self._model), **self._changes}

    def build(self) -> dict[str, Any]:
        """Return the JSON object to post now.

        Raises:
            ModelFailure: A message holds what this wire cannot carry.
        """
        self._sent_forms = self._forms
        return self._build(self._sent_forms)

    def _build(self, forms: Forms) -> dict[str, Any]:
        return build_request(self._request, self._model, forms)

    def encode(self) -> bytes:
        """Return the same as the bytes to post."""
        return msgspec.json.encode(self.build())

    def refused(self, status: int, content: bytes) -> bool:
        """Return whether to ask again at once: the next request is another one.

        Args:
            status: Of the endpoint's answer.
            content: Its body.
        """
        refusal = Refusal(status, content)
        self._is_full = is_context_full(status, refusal.text)
        if self._is_full:
            return self._shorten(refusal.text)
        if not refusal.is_read or self._form_changes >= MAX_FORM_CHANGES:
            return False
        self._form_changes += 1
        if self._build(self._forms) != self._build(self._sent_forms):
            return True  # another call learnt meanwhile what this request was sent without
        last, before = self._last
        if last == refusal.text:  # the last change was none that the endpoint asked for
            kept = {name: form for name, form in self._changes.items() if name in _ADDING}
            self._changes = {**before, **kept}
        self._last = (refusal.text, self._changes)
        sent = self._build(self._forms)
        while self._build(self._forms) == sent:  # a form may change nothing of this request
            forms = self._forms
            changes = other_forms(refusal, sent, forms, self._tried)
            if not changes:
                self._changes = self._last[1]
                return False
            self._changes = {**self._changes, **changes}
            for name, form in changes.items():
                self._tried |= {(name, form), (name, forms.get(name, "send"))}
        return True

    def _shorten(self, text: str) -> bool:
        strategy = self._request.run.truncation_strategy
        if strategy is not None and strategy.kind != "auto":
            return False
        if self._truncations >= MAX_TRUNCATIONS:
            return False
        share = kept_share(text) if self._truncations == 0 else _HALF
        if self._truncations >= MAX_TRUNCATIONS - 2:
            share = 0.0  # as little as there may be, first of the thread, then of the turns
        before, kept = self._request, shortened(self._request, share)
        if kept is None:
            return False
        self._truncations += 1
        _logger.info(
            "run %s: the model's context is full; the oldest %d of %d messages of the thread and "
            "%d of %d rounds of tools are left out",
            before.run.id,
            len(before.messages) - len(kept.messages),
            len(before.messages),
            len(before.turns) - len(kept.turns),
            len(before.turns),
            extra={"run_id": before.run.id, "thread_id": before.run.thread_id},
        )
        self._request = kept
        return True

    def accepted(self) -> None:
        """Remember the forms of the request: the endpoint took it."""
        self._known.learn(self._model, self._changes)

    def explained(self, failure: ModelFailure) -> ModelFailure:
        """Return the failure to show, with what helps where the context is full."""
        if not self._is_full:
            return failure
        return ModelFailure(f"{failure.message}{_HINT}", code="invalid_prompt")
