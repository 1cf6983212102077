"""One page in one file: the viewer with a run, and the episodes chosen. It needs no server and loads nothing.

The page is the viewer itself. Its scripts, its styles and the server's answers are written into it. The content
security policy allows exactly these scripts and styles, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hiper.config import Config
from hiper.errors import UserError
from hiper.files import atomic_file
from hiper.viewer.app import STATIC, Library
from hiper.viewer.indexing import COLUMNS, index_file
from hiper.viewer.reading import RunReader
from hiper.viewer.tokens import in_json

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)


def export_page(run: Path, file: Path, chosen: Sequence[str] | None) -> list[str]:
    """Write a page, whole or not at all.

    Args:
        run: The folder of the run.
        file: The page.
        chosen: The episodes, such as ``iter-00003/17``. None: see :func:`some_episodes`.

    Returns:
        The episodes of the page.

    Raises:
        UserError: There is no such run or episode.
        UnwritableError: The disk refused.
    """
    library = Library(run)
    ids = library.folder.runs()
    if len(ids) != 1:
        raise UserError(f"{run} holds {len(ids) or 'no'} runs, and a page shows one: name the folder of a run")
    reader = library.run(ids[0])
    episodes = some_episodes(reader) if chosen is None else list(dict.fromkeys(chosen))
    page = _page(in_json(dict(_answers(library, ids[0], episodes))))
    with atomic_file(file) as partial:
        partial.write_text(page, encoding="utf-8")
    return episodes


def some_episodes(run: RunReader) -> list[str]:
    """Choose episodes of the last iteration and of the last evaluation.

    Of the iteration, these are the three that estimators disagree on most, and the first that was won and that was not.
    Of the evaluation, these are the first of both.
    """
    files = run.episode_files()
    last = [[f for f in files if (f.split is None) is training][-1:] for training in (True, False)]
    found: list[str] = []
    for file in (file for files in last for file in files):
        rows = _rows(run, file.name)
        apart = sorted((row for row in rows if row["apart"] is not None), key=lambda row: -row["apart"])
        outcomes = [next((row for row in rows if row["won"] == won), None) for won in (1, 0)]
        found += [f"{file.name}/{row['n']}" for row in (*apart[:3], *outcomes) if row is not None]
    return list(dict.fromkeys(found))


def _rows(run: RunReader, name: str) -> list[dict[str, Any]]:
    config: Config | None = run.settings()[1]
    return [dict(zip(COLUMNS, row, strict=True)) for row in index_file(config, run.episode_file(name))["rows"]]


def _answers(library: Library, run: str, episodes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield what the page will ask, and the answer."""
    reader = library.run(run)
    yield "runs", library.runs()
    yield _asked("run", run=run), reader.details()
    places = [_place(episode) for episode in episodes]
    files: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for name, _ in places):
        file = reader.episode_file(name)
        numbers = {number for other, number in places if other == name}
        rows = [list(row.values()) for row in _rows(reader, name) if row["n"] in numbers]
        files.append({"name": name, "iteration": file.iteration, "split": file.split, "rows": rows, "note": None})
    counts = dict.fromkeys(("done", "compared", "of"), len(files))
    index = {"columns": COLUMNS, "sequence": 1, **counts, "files": files}
    yield _asked("episodes", run=run, after=0), index
    yield _asked("episodes", run=run, after=1), index | {"files": []}
    for name, number in places:
        library.lines.of(reader.episode_file(name))
        found = library.episode(run, name, number)
        yield _asked("episode", run=run, file=name, n=number), found
        for turn in range(len(found["turns"])):
            prompt = library.prompt(run, name, number, turn)
            yield _asked("prompt", run=run, file=name, n=number, turn=turn), prompt
        # Damaged episodes and estimators of a user's own fail in ways of their own. The rest is shown without.
        with suppress(Exception):
            yield _asked("credit", run=run, file=name, n=number), library.credit_of(run, name, number, {})


def _place(episode: str) -> tuple[str, int]:
    name, _, number = episode.strip().rpartition("/")
    if not name or not number.isdecimal():
        raise UserError(f"'{episode[:100]}' is no episode: name it as the viewer does, such as iter-00003/17")
    return name, int(number)


def _asked(name: str, **parameters: object) -> str:
    """Write a request as the page writes it."""
    query = "&".join(f"{key}={quote(str(value), safe=_UNESCAPED)}" for key, value in parameters.items())
    return f"{name}?{query}"


_UNESCAPED = "-_.!~*'()"
"""What ``encodeURIComponent`` leaves as it is."""


def _page(answers: str) -> str:
    scripts = [(STATIC / "vendor" / "uplot.min.js").read_text(encoding="utf-8"), bundled("main")]
    styles = [(STATIC / name).read_text(encoding="utf-8") for name in ("vendor/uplot.min.css", "style.css")]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>HiPER viewer</title>",
        '<link rel="icon" href="data:,">',
        *(f"<style>{style}</style>" for style in styles),
    ]
    index = (STATIC / "index.html").read_text(encoding="utf-8")
    body = index.partition("<body>")[2].partition("</body>")[0]
    # Answers hold whatever environments and models said. Without "<" they cannot end the block that holds them.
    data = answers.replace("<", "\\u003c")
    blocks = [
        f'<script type="application/json" id="answers">{data}</script>',
        f"<script>{scripts[0]}</script>",
        f'<script type="module">{scripts[1]}</script>',
    ]
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", f"<body>{body}", *blocks]
    return "\n".join([*lines, "</body>", "</html>", ""])


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def bundled(name: str) -> str:
    """Return a module and all that it imports as one script. Each module keeps names of its own in a function."""
    done: dict[str, str] = {}

    def add(module: str) -> None:
        if module in done:
            return
        text = (STATIC / f"{module}.js").read_text(encoding="utf-8")
        for _, imported in _IMPORT.findall(text):
            add(imported)
        exports = ", ".join(match[1] for match in _EXPORT.finditer(text))
        body = _EXPORT.sub("", _IMPORT.sub(lambda m: f"const {{{m[1]}}} = module_{m[2]};\n", text))
        done[module] = f"const module_{module} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n"

    add(name)
    return "".join(done.values())
