"""The runner that options ask for."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.errors import UsageError
from trajcheck.runners.local import LocalRunner
from trajcheck.runners.outcomes import Runner


def make_runner(
    name: str = "local",
    *,
    workers: int | None = None,
    devices: Sequence[str] = (),
    address: str | None = None,
    gpus_per_task: float = 0,
    memory: int | None = None,
) -> Runner:
    """ "local": this process, or `workers` processes of this machine, or one for each of `devices`. "ray": the cluster
    at `address`, or a Ray of this machine for as long as the work takes; each task is given `gpus_per_task` GPUs and
    `memory` bytes there. Raises UsageError for options that contradict each other, and where Ray is not installed."""
    if name == "ray":
        if devices:
            raise UsageError("devices were named, but Ray chooses them itself; say how many GPUs a task is given")
        from trajcheck.runners.ray_cluster import RayRunner  # what starts a Ray is for those who ask for one

        return RayRunner(address, workers, gpus_per_task, memory)
    if name != "local":
        raise UsageError(f"no runner {name!r}; expected local or ray")
    if address is not None:
        raise UsageError(f"the address {address!r} is that of a Ray cluster; add --runner ray, or leave it out")
    if gpus_per_task or memory:
        raise UsageError("GPUs and memory of a task can be asked of Ray alone; the local runner takes devices")
    if workers is None and not devices:
        return LocalRunner()
    from trajcheck.runners.processes import ProcessRunner  # and what starts processes, likewise

    return ProcessRunner(len(devices) if workers is None else workers, devices)
