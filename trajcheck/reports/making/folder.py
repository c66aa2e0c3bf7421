"""The report folder: whose it is, and how files appear in it whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from trajcheck.errors import OutputError
from trajcheck.files.folders import OpenFolder, StagedFile
from trajcheck.files.leases import HeldError, take
from trajcheck.files.opening import read_json
from trajcheck.files.presence import Presence
from trajcheck.files.remote.address import folder_name, is_remote
from trajcheck.files.walking import make_folders
from trajcheck.runs.formats.recognise import run_around

SUMMARY = "summary.json"

#: Hidden, and there only while finished files are moved into place: who moves them.
PUBLISHING = ".publishing"
#: Seconds for which another one who publishes is waited for.
PATIENCE = 120.0


class ChangedError(Exception):
    """The report that something was made from is another one by now."""


def default_folder(run: Path) -> Path:
    """reports/<the run's path below the working folder>; reports/<its name> for a run that lies elsewhere;
    reports/ORG--NAME@step for hf://ORG/NAME@step*."""
    if is_remote(run):
        return Path("reports") / name_of(run)
    with suppress(ValueError):
        return Path("reports") / Path(os.path.abspath(run)).relative_to(Path.cwd())
    return Path("reports") / name_of(run)


def name_of(run: str | os.PathLike[str]) -> str:
    """What a run is called in the name of a report's folder."""
    return folder_name(run) if is_remote(run) else Path(os.path.abspath(run)).name


class ReportFolder:
    """A context in which a report is made; `publish` puts finished files into the report folder.

    Several processes may be at it: each publishes whole, so that the report is that of the last one; `alone` says
    whether there is nobody else now, whose files in it might be removed.

    Leaving it removes what was left unfinished, and folders that were created for nothing. Raises OutputError when the
    folder cannot be written, or holds the report of another run, a run, or anything else.
    """

    def __init__(self, path: Path, run_id: str, option: str = "another folder with --out") -> None:
        """`option` says what to choose where this folder cannot be had."""
        self.path, self.run_id, self.option = path, run_id, option
        self._created: list[Path] = []
        self._left = ExitStack()
        self._work: OpenFolder | None = None

    def __enter__(self) -> ReportFolder:
        self._check_owner()
        try:
            make_folders(self.path, self._created)
            self._folder = self._left.enter_context(OpenFolder.at(self.path))
            self._folder.remove_leftovers()
            self._presence = self._left.enter_context(Presence(self._folder))
        except OSError as error:
            self._clean()
            raise OutputError(
                f"{self.path}: the report folder cannot be written: {error.strerror}. Choose {self.option}."
            ) from error
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    @property
    def alone(self) -> bool:
        """Whether nobody else is making this report now."""
        with suppress(OSError):
            return self._presence.alone
        return False

    @property
    def workspace(self) -> Path:
        """A folder for vectors that are needed as long as the context lasts. Raises OutputError."""
        if self._work is None:
            try:
                self._work = self._folder.work_folder()
            except OSError as error:
                raise OutputError(f"{self.path}: cannot be written: {error.strerror}.") from error
        return self._work.path

    def publish(
        self,
        files: Mapping[str, str | bytes],
        outdated: Iterable[str] = (),
        made_from: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write files whole, then give them their names in the report, each replacing its former self; remove those
        that are `outdated`. Names may lie in a folder of the report, as figures/cosine.png. The summary comes first: it
        says whose the others are, should this be the last that the process does.

        Raises ChangedError, and changes nothing, where files of the report are not as they were when these were
        `made_from` them; OutputError.
        """
        made: list[str] = []
        try:
            with ExitStack() as left:
                folders = {"": self._folder}
                for place in dict.fromkeys(os.path.dirname(name) for name in (*files, *outdated)):
                    if place and (any(os.path.dirname(name) == place for name in files) or self._folder.status(place)):
                        if self._folder.status(place) is None:
                            made.append(place)
                        folders[place] = left.enter_context(self._folder.inner(place, make=True))
                staged = {name: self._staged(folders, name, content, left) for name, content in files.items()}
                left.enter_context(take(self.path, PUBLISHING, patience=PATIENCE))
                self._check_summary(self._folder.holds(SUMMARY))
                for name, data in (made_from or {}).items():
                    if not self._folder.holds(name) or self._folder.read(name) != data:
                        raise ChangedError
                for name in sorted(files, key=lambda name: name != SUMMARY):
                    staged[name].publish()
                for name in outdated:
                    if os.path.dirname(name) in folders:
                        folders[os.path.dirname(name)].remove(os.path.basename(name))
                for folder in folders.values():
                    folder.sync()
        except HeldError as error:
            raise OutputError(f"{self.path}: another report is being written into it by {error}. Try again.") from error
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            raise OutputError(
                f"{self.path}: the report could not be written: {where}{error.strerror or error}."
            ) from error
        finally:
            for place in made:  # if it is empty still
                with suppress(OSError):
                    os.rmdir(place, dir_fd=self._folder.descriptor)

    @staticmethod
    def _staged(folders: Mapping[str, OpenFolder], name: str, content: str | bytes, left: ExitStack) -> StagedFile:
        data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        file = left.enter_context(folders[os.path.dirname(name)].staged(os.path.basename(name)))
        file.write([data])
        file.close()
        return file

    def _check_owner(self) -> None:
        if (run := run_around(self.path)) is not None:
            raise OutputError(
                f"{self.path}: lies in the recorded run {run}; runs are never written to. Choose {self.option}."
            )
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputError(f"{self.path}: exists and is not a folder. Choose {self.option}.")
        try:
            # Folders may be the reports of runs that lie in this one.
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
            self._check_summary(bool(others))
        except FileNotFoundError:
            raise OutputError(
                f"{self.path}: holds other files ({', '.join(sorted(others)[:3])}) and no report of this run. "
                f"Choose {self.option}, an empty or new one."
            ) from None

    def _check_summary(self, there: bool) -> None:
        """Whether the summary, if it is to be there, is of this run. Raises OutputError; FileNotFoundError."""
        try:
            owner = read_json(self.path / SUMMARY)["run"]["id"] if there else self.run_id
        except FileNotFoundError:
            raise
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
        if self._work is not None:
            self._work.close()
            self._folder.remove_folder(self._work.path.name)
            self._work = None
        self._left.close()
        for folder in reversed(self._created):
            with suppress(OSError):
                folder.rmdir()
