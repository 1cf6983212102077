"""A reader of JSON files that are larger than memory, one entry at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from hiper.errors import UserError

_CHUNK = 1 << 20
_LONGEST = 1 << 26
"""The largest number of characters of a value. Without it, broken files would be read to their end."""
_AFTER_VALUE = frozenset(" \t\r\n,:]}")
_SPACE = re.compile(r"[ \t\r\n]*")


def read_list(path: Path) -> Iterator[Any]:
    """Yield the values of a JSON array.

    Raises:
        UserError: the file is missing, is no JSON, or holds something else.
    """
    with _open(path) as file:
        scanner = _Scanner(path, file)
        for _ in scanner.entries("[", "]", "list"):
            yield scanner.value()


def read_pairs(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a JSON object, in pairs.

    Raises:
        UserError: see :func:`read_list`.
    """
    with _open(path) as file:
        scanner = _Scanner(path, file)
        for _ in scanner.entries("{", "}", "object"):
            key = scanner.value()
            scanner.expect(":", "a colon after a key")
            yield key, scanner.value()


def _open(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig")  # some editors write a byte order mark
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from None


class _Scanner:
    """A reader of a text from front to back that holds no more than the current value needs."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._passed = "", 0, 0
        self._decode = json.JSONDecoder().raw_decode

    def entries(self, opening: str, closing: str, what: str) -> Iterator[None]:
        """Yield before each entry between two marks. The caller reads the entry before it asks for the next."""
        self._begin(opening, what)
        more = not self.take(closing)
        while more:
            yield
            more = not self.take(closing)
            if more:
                self.expect(",", f"a comma or the end of the {what}")
        self._skip_space()
        if self._at < len(self._text):
            raise self._error("something follows the end")

    def _begin(self, mark: str, what: str) -> None:
        if not self.take(mark):
            start = self._text[self._at : self._at + 40]
            advice = "were two files swapped?"
            if start[:1] == "<":
                advice = "it looks like a web page: fetch the file again"
            raise UserError(
                f"'{self._path}' should hold a JSON {what} and begin with '{mark}'; it "
                + (f"begins with {start!r}; {advice}" if start else "is empty; fetch it again")
            )

    def take(self, mark: str) -> bool:
        """Step over ``mark`` if it comes next."""
        self._skip_space()
        found = self._text.startswith(mark, self._at)
        self._at += found * len(mark)
        return found

    def expect(self, mark: str, what: str) -> None:
        """Step over ``mark``, which must come next."""
        if not self.take(mark):
            raise self._error(f"{what} should be here")

    def value(self) -> Any:
        """Return the next value."""
        self._skip_space()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # "1." is a number already, but it may continue in the part not read yet.
                if self._text[end : end + 1] in _AFTER_VALUE or not self._more():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise self._error(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._error(str(error).partition(";")[0]) from None

    def _skip_space(self) -> None:
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        """Read as much again as is left, so that long values are not tried too often. Return False at the end."""
        rest = self._text[self._at :]
        try:
            chunk = self._file.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise UserError(f"'{self._path}' is no UTF-8 text ({error.reason}); fetch it again") from None
        self._passed += self._at
        self._text, self._at = rest + chunk, 0
        return bool(chunk)

    def _error(self, wrong: str) -> UserError:
        where = f"character {self._passed + self._at}"
        return UserError(f"'{self._path}' is no complete JSON file ({where}: {wrong}); fetch it again")
