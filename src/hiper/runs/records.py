"""Records of a study: settings, metrics and cards of many runs, packed in one file.

The file is a tar archive compressed with xz, which ``tar xf`` unpacks. The same runs always give the same bytes. Names
inside keep the structure of the study's folder:

runs/METHOD-seed0/config.yaml, metrics.jsonl, evaluations/*.json
tuning/runs/METHOD-trial0-seed100/...
SETTING=VALUE/runs/METHOD-seed0/...     one folder for each value of a sweep, with its comparison.md, .json, .png

A path may lead into the file as if it were a folder: ``records.tar.xz/env.boxes=1`` names the runs of one value.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from hiper.errors import UserError
from hiper.files import atomic_file, writing
from hiper.runs.folder import Run

RECORDS = "records.tar.xz"
"""The usual name of the file, in the folder of its study."""
LARGEST = 1 << 29
"""Bytes that an archive may hold in all, unpacked; more is refused."""


def pack(runs: Sequence[Run], root: Path, path: Path, documents: Sequence[Path] = ()) -> None:
    """Pack the records of runs, in this order. The first run's method is the reference of comparisons.

    Args:
        runs: the runs, all of them below ``root``.
        root: the study's folder; names in the archive are relative to it.
        path: the file to write.
        documents: other files below ``root``, such as the tables of a tuning; they come last.

    Raises:
        ValueError: a run lies outside ``root``.
        UnwritableError: the disk refused.
    """
    files = [*(file for run in runs for file in run.record_files), *documents]
    write_archive(path, {file.relative_to(root).as_posix(): file.read_bytes() for file in files})


def is_record(run: Run) -> bool:
    """Return whether a folder holds what records keep of a finished run and nothing else, as after unpacking them."""
    return run.evaluated and not run.checkpoints and not run.episodes_folder.exists()


@contextmanager
def open_runs(paths: Sequence[Path]) -> Iterator[list[Run]]:
    """Open runs, packed or not. Packed ones lie in a temporary folder until the context ends.

    Args:
        paths: run folders, packed files, or paths that lead into packed files.

    Raises:
        UserError: a path is neither, a packed file is damaged, or it holds no runs at that place.
    """
    with ExitStack() as stack:
        unpacked: dict[Path, PackedRuns] = {}
        runs: list[Run] = []
        for path in paths:
            file = next((place for place in (path, *path.parents) if place.is_file()), None)
            if file is None:
                runs.append(Run.open(path))
                continue
            if file not in unpacked:
                unpacked[file] = stack.enter_context(unpack(file))
            runs += unpacked[file].at(PurePosixPath(path.relative_to(file).as_posix()))
        yield runs


@dataclass(frozen=True)
class PackedRuns:
    """The runs of a packed file, unpacked for a while."""

    file: Path
    folder: Path
    """Temporary folder with the contents of the file."""
    names: Sequence[PurePosixPath]
    """Folders of the runs inside the file, in its order."""

    def at(self, place: PurePosixPath) -> list[Run]:
        """Open the run at a place inside the file, or else the runs in the folder there.

        Raises:
            UserError: there are none, or the settings of a run are invalid.
        """
        chosen = [name for name in self.names if name == place or name.parent in (place, place / "runs")]
        if not chosen:
            folders = dict.fromkeys(name.parent for name in self.names)
            known = ", ".join(str(self.file / folder) for folder in folders) or "no place of the file"
            raise UserError(f"{self.file / place} holds no runs; there are runs in {known}")
        return [Run.open(self.folder / name, origin=self.file / name) for name in chosen]


@contextmanager
def unpack(file: Path) -> Iterator[PackedRuns]:
    """Unpack a file into a temporary folder that is deleted in the end.

    Raises:
        UserError: the file is damaged.
        UnwritableError: the disk refused.
    """
    members = read_archive(file)
    with TemporaryDirectory(prefix="hiper-records-") as temporary:
        folder = Path(temporary)
        for name, content in members.items():
            with writing(folder / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        folders = dict.fromkeys(PurePosixPath(name).parent for name in members)
        yield PackedRuns(file, folder, [name for name in folders if Run.exists(folder / name)])


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write an archive, whole or not at all. Equal members in equal order give equal bytes.

    Args:
        path: the file.
        members: contents by name.
    """
    buffer = io.BytesIO()
    # USTAR has no extended headers; times, owners and modes are constants.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            archive.addfile(member, io.BytesIO(content))
    with atomic_file(path) as partial:
        partial.write_bytes(lzma.compress(buffer.getvalue(), preset=9))


def read_archive(path: Path) -> dict[str, bytes]:
    """Read the contents of an archive by name, in order.

    Raises:
        UserError: the file is damaged, or a member is anything but a plain file at a relative path of its own.
    """
    members: dict[str, bytes] = {}
    size = 0
    try:
        with lzma.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    size += member.size
                    if reason := _oddity(member, members, size):
                        raise UserError(f"{path} is no file of packed runs: {reason}; get it anew")
                    content = archive.extractfile(member)
                    members[member.name] = b"" if content is None else content.read()
            # tarfile stops at the archive's last block. Only the end of the stream tells that nothing was cut off.
            while stream.read(1 << 20):
                pass
    except FileNotFoundError:
        raise UserError(f"there is no file of packed runs at {path}") from None
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no file of packed runs, or damaged ({error}): get it anew") from error
    folders = {str(parent) for name in members for parent in PurePosixPath(name).parents}
    if clash := next((name for name in members if name in folders), None):
        raise UserError(f"{path} is no file of packed runs: '{clash}' is a file and a folder; get it anew")
    return members


def _oddity(member: tarfile.TarInfo, known: Mapping[str, bytes], size: int) -> str | None:
    """Why a member must not be unpacked; None: no reason."""
    name = PurePosixPath(member.name)
    if size > LARGEST:
        return f"it holds more than {LARGEST >> 20} MiB"
    if not member.isreg():
        return f"'{member.name}' is not a plain file"
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or str(name) != member.name or name.name == "":
        return f"'{member.name}' is not a plain relative path"
    if member.name in known:
        return f"'{member.name}' is there twice"
    return None
