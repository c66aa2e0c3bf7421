"""A Ray of this machine that starts only what tasks need.

`ray.init` would also start what scales a cluster with its load, what sends workers' output to this process, and a
server of which all that is left without its pages reports to Ray's makers: three processes that import Ray each, and
the last is waited for. There is no option for that; the methods that start them are Ray's own, and one that a release
does not have is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

#: Methods of Ray's node, each of which starts a process that no task needs.
_NOT_NEEDED = ("start_monitor", "start_log_monitor", "start_api_server")


@contextlib.contextmanager
def only_what_tasks_need() -> Iterator[None]:
    """A Ray that is started in the block has a store of tasks (GCS), a raylet with its agents, and workers."""
    from ray._private.node import Node

    before = {name: Node.__dict__[name] for name in _NOT_NEEDED if name in Node.__dict__}
    try:
        for name in before:
            setattr(Node, name, _nothing)
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def _nothing(self: Any, *args: Any, **options: Any) -> None:
    """In place of a method that starts a process; the node has no pages, as where their server cannot be started."""
    vars(self).setdefault("_webui_url", None)
