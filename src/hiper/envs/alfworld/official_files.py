"""The official games: where to download them, and whether installed games are the official ones."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from hiper.envs.alfworld.library import DATA_VARIABLE, data_path, official_panels, open_split
from hiper.envs.alfworld.sources import GAME_FILE, RELEASE
from hiper.envs.downloads import Arrival, DataHome, Finding, RemoteFile, Source, State, download
from hiper.envs.downloads.sets import Progress, write_record
from hiper.envs.downloads.transfer import sha256_of
from hiper.errors import NoSplitError, UserError
from hiper.files import atomic_folder

SPLITS = ("train", "valid_seen", "valid_unseen")

ARCHIVE = RemoteFile(
    "json_2.1.2_tw-pddl.zip",
    (
        Source(
            "the ALFWorld project's release",
            "https://github.com/alfworld/alfworld/releases/download/0.4.0/json_2.1.2_tw-pddl.zip",
        ),
    ),
    size=36_493_542,
)
"""All games of the three splits, about 330 MB unpacked. In spite of the file's name, they are version 2.1.1."""


class Games:
    """The games of all splits; a :class:`~hiper.envs.downloads.DataSet`."""

    name = "games"
    summary = f"all games of {', '.join(SPLITS)}: {ARCHIVE.size or 0:,} bytes to download, 330 MB unpacked"

    def __init__(self, archive: RemoteFile = ARCHIVE, splits: Sequence[str] = SPLITS) -> None:
        self._archive = archive
        self._splits = splits

    def inspect(self, folder: Path, progress: Progress) -> Sequence[Finding]:
        """Return one finding per split. A split is right by the hash of its panel, which covers every game's text."""
        return [self._inspect_split(folder, split) for split in self._splits]

    def _inspect_split(self, folder: Path, split: str) -> Finding:
        if not folder.exists():
            return Finding(split, State.MISSING)
        try:
            library = open_split(split, folder)
        except NoSplitError:
            return Finding(split, State.MISSING)
        except UserError as error:
            return Finding(split, State.WRONG, str(error))
        found = f"{len(library.panel):,} games that say '{library.dialect}', sha256 {library.panel.hash}"
        if library.official is None:
            return Finding(split, State.UNVERIFIED, found)
        if library.official:
            return Finding(split, State.RIGHT, found)
        known = official_panels()[library.panel.name]
        return Finding(
            split, State.WRONG, f"{found}; the official ones are {known['tasks']:,}, sha256 {known['sha256']}"
        )

    def install(self, folder: Path, progress: Progress) -> Sequence[Arrival]:
        """Download and unpack the games, unless all are there. An archive in the folder is used as it is."""
        if folder.is_file():
            raise UserError(f"{folder} is a file, but games are unpacked into a folder; name another with --folder")
        findings = self.inspect(folder, progress)
        if all(found.state in (State.RIGHT, State.UNVERIFIED) for found in findings):
            return []
        for found in findings:
            if found.state is not State.MISSING:
                raise UserError(
                    f"{folder} has a split {found.what} already ({found.detail}), and not all splits are right: move "
                    "it away so that games are not mixed, or name another folder"
                )
        if (folder / RELEASE).exists():
            raise UserError(f"{folder / RELEASE} is there already, without the games: move it away")
        arrival = self._archive_in(folder, progress)
        _unpack(arrival.path, folder / RELEASE)
        write_record(folder, arrival)
        arrival.path.unlink()
        return [arrival]

    def _archive_in(self, folder: Path, progress: Progress) -> Arrival:
        path = folder / self._archive.name
        with progress(path.name) as watch:
            if not path.is_file():
                return download(self._archive, folder, watch)
            size = path.stat().st_size
            if size != self._archive.size:
                raise UserError(f"{path} has {size:,} bytes instead of {self._archive.size:,}: delete it")
            return Arrival(path, Source("found there", path.absolute().as_uri()), size, sha256_of(path, watch))


def _unpack(archive: Path, release: Path) -> None:
    """Unpack all games of the archive or nothing. The archive's folder of the release becomes ``release``."""
    try:
        with zipfile.ZipFile(archive) as content, atomic_folder(release) as folder:
            for member in content.infolist():
                if member.filename.startswith(f"{RELEASE}/") and member.filename.endswith(f"/{GAME_FILE}"):
                    member.filename = member.filename.removeprefix(f"{RELEASE}/")
                    content.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}): delete it, and get it again") from error


DATA = DataHome(
    folder=data_path,
    variable=DATA_VARIABLE,
    sets=(Games(),),
    by_hand=(
        f"fetch {ARCHIVE.name} with a browser from https://github.com/alfworld/alfworld/releases/tag/0.4.0, lay it "
        "into the folder and give the same command again; or `pip install alfworld` and run `alfworld-download`. "
        "Meanwhile, data=generated plays games that need no download"
    ),
    checksums=(
        "No checksum is published for the archive. The hashes of train and valid_seen were taken from copies of the "
        "official games; none is known for valid_unseen"
    ),
)
