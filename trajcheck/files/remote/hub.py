"""Repositories of Hugging Face's hub, by huggingface_hub's listings.

    hf://ORG/NAME                    the main branch
    hf://ORG/NAME@step1000           a branch, a tag or a commit
    hf://ORG/NAME@step*              every branch and tag of such a name, a folder each
    hf://ORG/NAME@step*/inner        a folder in each of them

Each revision is listed and read at the commit that it was when it was listed, so that what is pushed meanwhile changes
nothing. A "/" in the name of a branch is written %2F.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from trajcheck.errors import RunError
from trajcheck.files.remote.file import RemoteFile
from trajcheck.files.remote.ranges import AgainError, at_once, tried
from trajcheck.files.remote.web import WebSource, needed
from trajcheck.readable import plain, some_of

MOST_REVISIONS, MOST_FILES = 20_000, 500_000
LARGEST = 2**50
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/]+))?((?:/.*)?)")
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_PATTERN = re.compile(r"[*?\[]")

T = TypeVar("T")


class Revision(NamedTuple):
    """A branch or tag, and the commit that it is."""

    name: str
    commit: str


class Listed(NamedTuple):
    """A file of a tree: its name there, and where it is."""

    name: str
    file: RemoteFile


def hub_files(address: str) -> list[Listed]:
    """The files at an address. Raises RunError."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise RunError(f"{address}: expected hf://ORG/NAME@REVISION, with * in the revision for several of them.")
    repository, wanted, inner = match[1], unquote(match[2] or "main"), unquote(match[3]).strip("/")
    api = needed("huggingface_hub").HfApi()
    several = _PATTERN.search(wanted) is not None
    if several:
        revisions = _matching(api, address, repository, wanted)
    else:
        revisions = [Revision(wanted, _commit(api, address, repository, wanted))]
    source = _source()
    tables = at_once(lambda revision: list(_listed(api, address, repository, revision, inner)), revisions)
    found = []
    for revision, table in zip(revisions, tables, strict=True):
        known = quote(revision.name, safe=" !$&'()+,;=@-_.~")
        for name, size, mark, sha256 in table:
            url = _url(api, repository, revision.commit, f"{inner}/{name}" if inner else name)
            if sha256:
                source.sha256[url] = sha256
            shown = f"hf://{repository}@{known}/{f'{inner}/' if inner else ''}{name}"
            file = RemoteFile(shown, url, size, mark, source, sha256)
            found.append(Listed(f"{known}/{name}" if several else name, file))
    return found


def _source() -> WebSource:
    """One for all its files, with the token of the user, which is asked for at each request."""
    return WebSource(needed("huggingface_hub").utils.build_hf_headers)


def _url(api: Any, repository: str, commit: str, name: str) -> str:
    return f"{api.endpoint}/{repository}/resolve/{commit}/{quote(name)}"


def _matching(api: Any, address: str, repository: str, pattern: str) -> list[Revision]:
    refs = _asked(address, lambda: api.list_repo_refs(repository))
    every = [*refs.branches, *refs.tags]
    if len(every) > MOST_REVISIONS:
        raise RunError(f"{address}: the repository has {len(every):,} branches; expected {MOST_REVISIONS:,} at most.")
    found: dict[str, Revision] = {}
    for each in every:
        if isinstance(each.name, str) and fnmatchcase(each.name, pattern) and each.name not in found:
            found[each.name] = Revision(each.name, _checked(address, each.target_commit))
    if not found:
        raise RunError(
            f"{address}: no branch or tag of {repository} is called {pattern!r:.200}; it has "
            f"{some_of([plain(each.name, 100) for each in every])}."
        )
    return list(found.values())


def _commit(api: Any, address: str, repository: str, revision: str) -> str:
    return _checked(address, _asked(address, lambda: api.repo_info(repository, revision=revision)).sha)


def _checked(address: str, commit: object) -> str:
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise RunError(f"{address}: the hub names {commit!r:.60} as a commit; expected 40 hex digits.")
    return commit


def _listed(
    api: Any, address: str, repository: str, revision: Revision, inner: str
) -> Iterator[tuple[str, int, str, str | None]]:
    """Of each file its name, size, what tells its content from another, and its sha256 where it has one."""

    def listing() -> list[Any]:
        found = []
        for each in api.list_repo_tree(repository, inner or None, recursive=True, revision=revision.commit):
            found.append(each)
            if len(found) > MOST_FILES:
                raise RunError(f"{address}: {revision.name} lists more than {MOST_FILES:,} files.")
        return found

    for each in _asked(f"{address} ({plain(revision.name, 100)})", listing):
        if not hasattr(each, "size"):
            continue  # a folder
        lfs = getattr(each, "lfs", None)
        sha256 = None if lfs is None else lfs.sha256
        size = each.size if lfs is None else lfs.size
        name = each.path.removeprefix(f"{inner}/") if inner and isinstance(each.path, str) else each.path
        fits = isinstance(name, str) and type(size) is int and 0 <= size <= LARGEST
        if not fits or not (sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256))):
            raise RunError(f"{address}: the listing of {revision.name} is none: {each!r:.200}")
        yield name, size, f"sha256:{sha256}" if sha256 else f"git:{each.blob_id!s:.60}", sha256


def _asked(shown: str, ask: Callable[[], T]) -> T:
    """What the hub answers, tried again where that may help. Raises RunError."""

    def once() -> T:
        try:
            return ask()
        except RunError:
            raise
        except Exception as error:
            if not _may_pass(error):
                raise RunError(f"{shown}: the hub does not list it: {plain(error, 300)}") from error
            raise AgainError(plain(error, 300)) from error

    return tried(shown, once)


def _may_pass(error: Exception) -> bool:
    """Whether what huggingface_hub raised may be better the next time: connections, and the server's own errors."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status:
        return status >= 500 or status in (408, 429)
    settled = (KeyError, TypeError, AttributeError, ValueError, ImportError)
    return not isinstance(error, settled) and type(error).__name__ != "OfflineModeIsEnabled"
