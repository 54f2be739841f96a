"""Changed answers of a model server: scores that are right, or one line."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from bad_inputs import Ended, wrong_ending
from hypothesis import strategies as st
from mutations import Mutation, damage, fields
from stub_server import Stub, _serving
from test_server_scorer import WORDS, asked, connect, examples, stub

from jelicit.commands.ending import ending_in_one_line

PROMPTS = [(asked(one),) for one in examples(5)]


@dataclass(frozen=True)
class Answer:
    """One answer, or every one from there on, is another.

    Attributes:
        number: Which completion, in order of the requests.
        change: Of its body.
        always: Whether those after it are changed, too.
    """

    number: int
    change: Mutation
    always: bool


class Answers:
    """Answers of a server; a few prompts are scored.

    Nobody can tell a false log-probability from a right one. All else that an answer says is right,
    is asked for again, or ends in one line that names the server.
    """

    name, slow = "server's answer", False

    def __init__(self) -> None:
        """Scores by a good server."""
        self._right = self._scored(None)[0]

    def changes(self) -> st.SearchStrategy[Answer]:
        """Of bodies: of bytes and of fields."""
        body = st.one_of(damage(), fields(), fields())
        return st.builds(Answer, st.integers(0, 8), body, st.booleans())

    def wrong(self, change: Answer) -> str:
        """See `Kind`."""
        scores, lied, ended = self._scored(change)
        if scores is None:
            return wrong_ending(ended, names=("http://127.0.0.1",))
        if lied:
            fine = np.isfinite(scores).all() and (scores <= 0.02).all()
            return "" if fine else "scores that are no log-probabilities"
        same = np.allclose(scores, self._right, atol=1e-6)
        return "" if same else "other scores of the same log-probabilities"

    def _scored(self, change: Answer | None) -> tuple[Any, bool, Ended]:
        """(scores or None, whether log-probabilities were changed, how it ended)."""
        spoiler = Spoiler(stub(), change)
        scores, code, err = None, 0, io.StringIO()
        with _serving(spoiler.reply) as url, redirect_stderr(err):
            try:
                with ending_in_one_line():
                    scorer = connect(url, timeout=2.0, retries=2, concurrency=1)
                    scores = scorer.score(PROMPTS, WORDS)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except Exception as error:
                print(f"Traceback: {error!r}", file=err)
                code = 1
        return scores, spoiler.lied, Ended(code, "", err.getvalue(), 0.0)


class Spoiler:
    """A server whose completions are changed on their way."""

    def __init__(self, server: Stub, change: Answer | None) -> None:
        """The server behind it."""
        self._server, self._change, self._number = server, change, -1
        self.lied = False

    def reply(self, handler: Any, content: bytes) -> None:
        """Answers one request."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = json.loads(content) if content else None
        status, value = self._server.answer(handler.path, body, headers)
        sent = json.dumps(value).encode()
        if handler.path.endswith("/completions"):
            self._number += 1
            sent = self._changed(sent, value)
        handler.write(status, sent)

    def _changed(self, sent: bytes, value: Any) -> bytes:
        change = self._change
        if change is None or self._number < change.number:
            return sent
        if self._number > change.number and not change.always:
            return sent
        changed = change.change.of(sent)
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            self.lied |= json.loads(changed)["choices"] != value["choices"]
        return changed
