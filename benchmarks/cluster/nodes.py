"""A Ray of many nodes on one machine, each with its own raylet and agents, and as little memory as Ray allows."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trajcheck.runners.ray_start import only_what_tasks_need

ROOT = Path(__file__).parents[2]
#: Bytes of a node's store of objects; Ray takes no less than this, and results of tasks are smaller than it stores.
STORE = 80_000_000
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_health_check_period_ms": "1000",  # a node that is lost is known to be
    "RAY_health_check_failure_threshold": "3",
}


class Nodes:
    """Of one processor each, the head among them."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.members = [cluster.head_node]
        self.seconds: list[float] = []  # that each took to start

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """Raises what Ray raises where the machine cannot bear another one."""
        began = time.monotonic()
        self.members.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE))
        self.seconds.append(time.monotonic() - began)

    def lose(self) -> None:
        """The newest, at once and without a word."""
        self._cluster.remove_node(self.members.pop(), allow_graceful=False)


@contextmanager
def nodes_here() -> Iterator[Nodes]:
    """One node, to which others may be added; all are gone afterwards."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    folder = tempfile.mkdtemp(prefix="trajcheck-", dir="/tmp")  # sockets have short paths
    os.environ.update(
        SETTINGS, RAY_TMPDIR=folder, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    )
    try:
        with only_what_tasks_need():
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
            try:
                yield Nodes(cluster)
            finally:
                ray.shutdown()
                cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
