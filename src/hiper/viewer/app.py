"""The web application: what it answers to each address. Reading a run imports neither torch nor transformers."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hiper import __version__
from hiper.errors import UserError, first_line
from hiper.viewer.credit import CreditDesk
from hiper.viewer.episodes import Lines, episode_json, prompt_json
from hiper.viewer.folder import Folder, NotFoundError
from hiper.viewer.index import Index, Worker
from hiper.viewer.reading import RunReader
from hiper.viewer.safety import Door, Guard
from hiper.viewer.tokens import TokenTexts, find_token_texts, in_json

STATIC = Path(str(files("hiper.viewer") / "static"))
"""The files of the page."""
LARGEST_BODY = 1 << 16
"""The most bytes of a request."""


class Library:
    """Everything that the viewer knows about a folder.

    Args:
        root: The folder, with runs or a run itself. It may come into being later.
    """

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.lines = Lines()
        self.credit = CreditDesk(self.lines)
        self.worker = Worker()
        self._readers: dict[str, RunReader] = {}
        self._indexes: dict[str, Index] = {}
        self._lock = threading.Lock()

    def run(self, run: str) -> RunReader:
        """Return the reader of a run by its id.

        Raises:
            NotFoundError: There is no such run.
        """
        path = self.folder.run_path(run)
        with self._lock:
            return self._readers.setdefault(run, RunReader(self.folder, run, path))

    def index(self, run: str) -> Index:
        """Return the index of a run's episodes."""
        reader = self.run(run)
        with self._lock:
            if run not in self._indexes:
                self._indexes[run] = Index(reader, self.worker)
            return self._indexes[run]

    def token_texts(self, run: RunReader) -> TokenTexts | None:
        """Return the texts of a run's tokens, by the tokenizer in one of its policies; None: it has none."""
        policies = [*sorted(run.path.glob("checkpoints/iter-*/policy"), reverse=True), run.path / "warm-start"]
        for policy in policies:
            if self.folder.holds(policy / "tokenizer.json") and (texts := find_token_texts(policy)):
                return texts
        return None

    # What each address answers

    def runs(self) -> dict[str, Any]:
        """Return the list of all runs."""
        ids = self.folder.runs() if self.folder.root.is_dir() else []
        summaries = []
        for run in ids:
            with suppress(NotFoundError):  # it was deleted a moment ago
                summaries.append(self.run(run).summary())
        return {
            "folder": self.folder.name,
            "single": self.folder.is_run,
            "version": __version__,
            "runs": summaries,
        }

    def stamps(self, run: str | None) -> dict[str, str]:
        """Return a text for a run, or for each, that changes when the run does."""
        ids = [run] if run else self.folder.runs() if self.folder.root.is_dir() else []
        found = {}
        for each in ids:
            with suppress(NotFoundError):
                found[each] = self.run(each).stamp()
        return found

    def episode(self, run: str, file: str, number: int) -> dict[str, Any]:
        """Return one episode."""
        reader = self.run(run)
        found = reader.episode_file(file)
        episode = episode_json(self.lines.episode(found, number), self.token_texts(reader))
        place = {"file": found.name, "iteration": found.iteration, "split": found.split, "n": number}
        return place | {"of": self.lines.count(found)} | episode

    def prompt(self, run: str, file: str, number: int, turn: int) -> dict[str, Any]:
        """Return the exact prompt of a turn."""
        reader = self.run(run)
        turns = self.lines.episode(reader.episode_file(file), number).turns
        if not 0 <= turn < len(turns):
            raise NotFoundError(f"the episode has {len(turns)} turns")
        return prompt_json(turns[turn], self.token_texts(reader))

    def credit_of(
        self, run: str, file: str, number: int, changes: Mapping[str, Any], only: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Return the credit of one episode by every estimator, or by those with the titles in ``only``."""
        reader = self.run(run)
        return self.credit.answer(reader, reader.episode_file(file), number, changes, only)


def make_app(library: Library, door: Door, more: Sequence[Route] = ()) -> Starlette:
    """Make the application.

    Args:
        library: The folder that it shows.
        door: Who may enter.
        more: Further addresses.
    """

    def number(request: Request, name: str) -> int:
        text = request.query_params.get(name, "")
        if not (text.isascii() and text.isdecimal()) or len(text) > 9:
            raise NotFoundError(f"'{name}' must be a number")
        return int(text)

    def place(request: Request) -> tuple[str, str, int]:
        return request.query_params.get("run", ""), request.query_params.get("file", ""), number(request, "n")

    def changes(request: Request) -> dict[str, Any]:
        return _mapping(request.query_params.get("set", "{}"), "'set'")

    def titles(request: Request) -> list[str] | None:
        given = request.query_params.get("only")
        return None if given is None else given.split("|")

    answers: dict[str, Callable[[Request], Any]] = {
        "runs": lambda _: library.runs(),
        "run": lambda request: library.run(request.query_params.get("run", "")).details(),
        "stamps": lambda request: library.stamps(request.query_params.get("run")),
        "episodes": lambda request: library.index(request.query_params.get("run", "")).answer(number(request, "after")),
        "episode": lambda request: library.episode(*place(request)),
        "prompt": lambda request: library.prompt(*place(request), number(request, "turn")),
        "credit": lambda request: library.credit_of(*place(request), changes(request), titles(request)),
    }
    routes: list[Route | Mount] = [Route(f"/api/{name}", answered_get(answer)) for name, answer in answers.items()]
    routes += more
    routes.append(Mount("/", StaticFiles(directory=STATIC, html=True)))
    return Starlette(routes=routes, middleware=[Middleware(Guard, door=door)])


def answered_get(answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
    """Turn a function into an endpoint that answers with JSON. A mistake is told in words."""

    return lambda request: _told(lambda: answer(request))


def answered_post(do: Callable[[Mapping[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """Turn a function of a JSON object into an endpoint, which works in a thread of its own."""

    async def endpoint(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return _json({"error": "the request is too large"}, 413)
        return await run_in_threadpool(_told, lambda: do(_mapping(body, "the request")))

    return endpoint


def _mapping(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise UserError(f"{name} must be a JSON object")
    return read


def _told(answer: Callable[[], Any]) -> Response:
    """Answer with JSON, or with the reason why not."""
    try:
        found = answer()
        text = found if isinstance(found, str) else in_json(found)
    except NotFoundError as error:
        return _json({"error": str(error)}, 404)
    except UserError as error:
        return _json({"error": str(error)}, 400)
    except Exception as error:  # damaged runs, environments and estimators of a user's own fail in ways of their own
        return _json({"error": f"{type(error).__name__}: {first_line(error)}"}, 500)
    return Response(text, media_type="application/json")


def _json(value: object, status: int) -> Response:
    return Response(in_json(value), status, media_type="application/json")
