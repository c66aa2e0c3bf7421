"""The report folder: whose it is, and how files appear in it whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from trajcheck.errors import OutputError
from trajcheck.files.other_processes import is_gone
from trajcheck.files.plain_json import parse_json
from trajcheck.files.whole_files import sync_folder
from trajcheck.runs.formats.recognise import recognise

SUMMARY = "summary.json"
UNFINISHED = ".unfinished-"


def default_folder(run: Path) -> Path:
    """reports/<the run's path below the working folder>; reports/<its name> for a run that lies elsewhere."""
    with suppress(ValueError):
        return Path("reports") / Path(os.path.abspath(run)).relative_to(Path.cwd())
    return Path("reports") / Path(os.path.abspath(run)).name


class ReportFolder:
    """A context that owns a staging folder inside the report folder; `publish` moves finished files into place.

    Leaving it removes the staging folder, and folders that were created for nothing. Raises OutputError when the folder
    cannot be written, or holds the report of another run, a run, or anything else.
    """

    def __init__(self, path: Path, run_id: str, option: str = "another folder with --out") -> None:
        """`option` says what to choose where this folder cannot be had."""
        self.path, self.run_id, self.option = path, run_id, option
        self.staging = path / f"{UNFINISHED}{platform.node()}-{os.getpid()}"
        self._created: list[Path] = []

    def __enter__(self) -> ReportFolder:
        self._check_owner()
        try:
            for folder in (*reversed(self.path.parents), self.path):
                if not folder.exists():
                    with suppress(FileExistsError):  # another process has made it meanwhile
                        folder.mkdir()
                        self._created.append(folder)
            self._remove_remains()
            self.staging.mkdir(exist_ok=True)
        except OSError as error:
            self._clean()
            raise OutputError(
                f"{self.path}: the report folder cannot be written: {error.strerror}. Choose {self.option}."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    def publish(self, files: Mapping[str, str | bytes], outdated: Iterable[str] = ()) -> None:
        """Write files whole in the staging folder, then move them into the report, each replacing its former self;
        remove those that are `outdated`. Names may lie in a folder of the report, as figures/cosine.png. The summary
        comes first: it says whose the others are, should this be the last that the process does."""
        try:
            for name, content in files.items():
                data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
                (self.staging / name).parent.mkdir(parents=True, exist_ok=True)
                with open(self.staging / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for name in sorted(files, key=lambda name: name != SUMMARY):
                (self.path / name).parent.mkdir(exist_ok=True)
                os.replace(self.staging / name, self.path / name)
            for name in outdated:
                (self.path / name).unlink(missing_ok=True)
            for folder in {(self.path / name).parent for name in files} | {self.path}:
                sync_folder(folder)
        except OSError as error:
            raise OutputError(f"{self.path}: the report could not be written: {error.strerror}.") from error

    def _remove_remains(self) -> None:
        """Staging folders of processes of this machine that were killed."""
        for remains in self.path.glob(f"{UNFINISHED}{platform.node()}-*"):
            number = remains.name.rpartition("-")[2]
            if number.isdecimal() and is_gone(int(number)):
                shutil.rmtree(remains, ignore_errors=True)

    def _check_owner(self) -> None:
        for folder in (Path(os.path.abspath(self.path)), *Path(os.path.abspath(self.path)).parents):
            with suppress(OSError):
                if folder.is_dir() and recognise(folder):
                    raise OutputError(
                        f"{self.path}: lies in the recorded run {folder}; runs are never written to. Choose "
                        f"{self.option}."
                    )
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputError(f"{self.path}: exists and is not a folder. Choose {self.option}.")
        try:
            # Folders may be the reports of runs that lie in this one.
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
            text = (self.path / SUMMARY).read_text() if others else None
            owner = parse_json(text)["run"]["id"] if text else self.run_id
        except FileNotFoundError:
            raise OutputError(
                f"{self.path}: holds other files ({', '.join(sorted(others)[:3])}) and no report of this run. "
                f"Choose {self.option}, an empty or new one."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.path}: its {SUMMARY} cannot be read, so it is not known whose report it is ({error!r}). "
                f"Move it away, or choose {self.option}."
            ) from error
        if owner != self.run_id:
            raise OutputError(
                f"{self.path}: holds the report of another run (id {owner}; this one is {self.run_id}), which is not "
                f"overwritten. Choose {self.option}."
            )

    def _clean(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        for folder in reversed(self._created):
            with suppress(OSError):
                folder.rmdir()
