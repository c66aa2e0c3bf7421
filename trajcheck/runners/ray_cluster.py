"""Work on a Ray cluster, or on a Ray of this machine for as long as it takes (extra `ray`).

Ray itself neither retries nor gives up here: a task whose worker or node is lost is submitted again, twice, and so is
one whose result was lost with its node; then it is lost, and the reason says how. No exception of Ray's leaves this
module. Which worker gets a task is Ray's choice: a group is no more than the order of submission.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from trajcheck.errors import RunnerError, TrajcheckError, UsageError
from trajcheck.runners.attempts import ATTEMPTS, lost
from trajcheck.runners.calls import check_function, find_function, plain_tasks
from trajcheck.runners.messages import call_encoded, decode
from trajcheck.runners.outcomes import Lost, Outcome, Task
from trajcheck.runners.processors import usable_processors
from trajcheck.runners.ray_resources import TaskResources, alive_nodes
from trajcheck.runners.ray_session import answering, check_address, check_installed, ray_session
from trajcheck.version import __version__

_LOOK = 5.0  # seconds after which the cluster's nodes are looked at again
_WAIT_FOR_HEAD = 15.0  # seconds; Ray ends the process after 60 without an answer
_WAIT_FOR_NODES = 60.0  # seconds for which no node may have what a task asks for, before the tasks are lost


class RayRunner:
    """`address` is that of a cluster that is running ("auto": the one of this machine), every node of which sees the
    same files; without one a Ray is started here, and stopped at the end. At most `workers` tasks run at a time, else
    as many as fit. Each is given `gpus_per_task` GPUs, the first of which is its "device", and `memory` bytes (Ray
    counts them, and does not enforce that). `allow` lists modules outside trajcheck whose functions may run."""

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        gpus_per_task: float = 0,
        memory: int | None = None,
        allow: Sequence[str] = (),
    ) -> None:
        check_installed()
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers; expected at least 1")
        if address is not None:
            check_address(address)
        here = usable_processors() if address is None else 1
        self._processors = max(here, workers or 1)  # of a Ray that is started here
        self._request = TaskResources(self._processors // workers if workers else 1, gpus_per_task, memory or 0)
        self._address = address
        self._workers = workers
        self._allow = tuple(allow)

    def map(self, function: str, tasks: Sequence[Task]) -> Generator[tuple[Task, Outcome], None, None]:
        check_function(function, self._allow)
        handed = [{"threads": self._request.processors, **task} for task in plain_tasks(tasks)]
        if self._request.gpus:
            handed = [{**task, "device": "cuda"} for task in handed]  # Ray shows a worker its own GPUs alone
        return self._outcomes(function, tasks, handed)

    def _outcomes(
        self, function: str, tasks: Sequence[Task], handed: Sequence[Task]
    ) -> Generator[tuple[Task, Outcome], None, None]:
        if not tasks:
            return
        from ray.exceptions import RayError

        with ray_session(self._address, self._processors):
            try:
                with closing(_Map(function, handed, self._request, self._workers).outcomes()) as outcomes:
                    for place, outcome in outcomes:
                        yield tasks[place], outcome
            except RayError as error:
                raise RunnerError(f"the Ray cluster is gone: {_first_line(error)}") from error


class _Map:
    """One call of `map` on the Ray that this process is connected to."""

    def __init__(self, function: str, tasks: Sequence[Task], request: TaskResources, workers: int | None) -> None:
        import ray

        self._nodes = alive_nodes()
        self._head = ray.get_runtime_context().gcs_address
        self._looked = self._fitted = self._answered = time.monotonic()
        if not request.slots(self._nodes):
            raise UsageError(request.refusal(self._nodes))
        self._function = function
        self._tasks = tasks
        self._request = request
        self._workers = workers
        self._todo = deque(range(len(tasks)))
        self._flying: dict[Any, int] = {}
        self._ended: dict[int, list[str]] = {}  # how the workers ended that had a task
        self._remote = ray.remote(run_task).options(
            num_cpus=request.processors, num_gpus=request.gpus, memory=request.memory or None, max_retries=0
        )

    def outcomes(self) -> Generator[tuple[int, Outcome], None, None]:
        import ray

        try:
            while self._todo or self._flying:
                while self._todo and len(self._flying) < self._most():
                    self._submit(self._todo.popleft())
                ready, _ = ray.wait(list(self._flying), num_returns=1, timeout=_LOOK)
                if ready:
                    place = self._flying.pop(ready[0])
                    outcome = self._outcome(ready.pop(), place)  # with its reference, the result leaves Ray's store
                    if outcome is not None:
                        yield place, outcome
                if self._starved():
                    reason = self._request.refusal(self._nodes)
                    for place in [*self._flying.values(), *self._todo]:
                        yield place, Lost(f"{reason}, for {_WAIT_FOR_NODES:g} s")
                    self._todo.clear()
                    return
        finally:
            for reference in self._flying:
                ray.cancel(reference, force=True)

    def _submit(self, place: int) -> None:
        reference = self._remote.remote(self._function, self._tasks[place], __version__)
        self._flying[reference] = place

    def _most(self) -> int:
        """How many tasks are with Ray at a time: without a bound, a few more than run, so that none waits for us."""
        return self._workers or max(1, 2 * self._request.slots(self._nodes))

    def _outcome(self, reference: Any, place: int) -> Outcome | None:
        """What came of the task; None where it was submitted again."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return decode(ray.get(reference))
        except RayTaskError as error:
            if isinstance(error.cause, TrajcheckError):
                raise RunnerError(str(error.cause)) from error
            raise RunnerError(
                f"a worker of the Ray cluster cannot run trajcheck: {_first_line(error.cause)}; expected trajcheck "
                f"{__version__} on every node"
            ) from error
        except RayError as error:
            deaths = self._ended.setdefault(place, [])
            deaths.append(_how(error))
            if len(deaths) >= ATTEMPTS:
                return lost(deaths)
            self._submit(place)
            return None

    def _starved(self) -> bool:
        """Whether no node has had what a task asks for, for longer than a node takes to come back. Raises RunnerError
        when the cluster's head has not answered for as long: soon after, Ray would end this process."""
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            try:
                answering(self._head)
            except OSError as error:
                if now - self._answered > _WAIT_FOR_HEAD:
                    raise RunnerError(f"the Ray cluster at {self._head} does not answer any more: {error}") from error
                return False
            self._nodes, self._answered = alive_nodes(), now
        if self._request.slots(self._nodes):
            self._fitted = now
        return now - self._fitted > _WAIT_FOR_NODES


def run_task(function: str, task: Task, version: str) -> bytes:
    """On a worker: the encoded outcome. RunnerError where the worker's trajcheck is another than the caller's."""
    if version != __version__:
        found = f"trajcheck {__version__} on a node of the Ray cluster"
        raise RunnerError(f"{found}; expected {version}, as here; install the same version on every node")
    return call_encoded(find_function(function), task)


def _how(error: Exception) -> str:
    """How a worker ended, as the end of "worker ..."."""
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return "was killed because its node ran out of memory"
    if isinstance(error, exceptions.NodeDiedError):
        return "was lost with its node"
    if isinstance(error, exceptions.WorkerCrashedError):
        return "died (out of memory?)"
    if isinstance(error, exceptions.ObjectLostError):
        return "was lost with its result"
    return f"was lost ({type(error).__name__}: {_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
