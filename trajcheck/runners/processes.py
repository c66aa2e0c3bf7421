"""Work in worker processes of this machine, which are started again when they die."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from threading import Lock
from typing import Any

from trajcheck.errors import RunnerError, UsageError
from trajcheck.runners.attempts import ATTEMPTS, lost
from trajcheck.runners.calls import check_function, plain_tasks
from trajcheck.runners.outcomes import Failed, Outcome, Task
from trajcheck.runners.processors import share_of_processors, threads_variable
from trajcheck.runners.waiting import Stay, Waiting
from trajcheck.runners.worker_process import EndedError, WorkerProcess, hold_signals

_LOOK = (
    1.0  # seconds after which workers that said nothing are looked at: a child of a dead one may hold its connection
)


@dataclass(eq=False)
class _Seat:
    """Where one worker at a time is. `place` is the task that it has, or that the next one is given."""

    device: str | None
    worker: WorkerProcess | None = None
    started: bool = False
    busy: bool = False
    place: int | None = None
    stay: Stay = field(default_factory=Stay)
    failed_starts: list[str] = field(default_factory=list)


class ProcessRunner:
    """`workers` processes, or one for each of `devices`, which becomes the key "device" of its tasks. Each is a new
    interpreter (not a fork: torch and CUDA do not survive one) and takes its share of the processors.

    A task whose worker dies is given to a fresh process, twice; then it is lost. A seat in which no worker comes to
    life, three times, is given up. `allow` lists modules outside trajcheck whose functions may run.
    """

    def __init__(self, workers: int, devices: Sequence[str] = (), allow: Sequence[str] = ()) -> None:
        if workers < 1 or (devices and workers != len(devices)):
            expected = f"{len(devices)}, one for each device" if devices else "at least 1"
            raise UsageError(f"{workers} workers; expected {expected}")
        self._devices: list[str | None] = list(devices) or [None] * workers
        self._allow = tuple(allow)

    def map(self, function: str, tasks: Sequence[Task]) -> Generator[tuple[Task, Outcome], None, None]:
        check_function(function, self._allow)
        return _Map(function, tasks, self._devices).outcomes()


class _Map:
    """One call of `map`."""

    def __init__(self, function: str, tasks: Sequence[Task], devices: Sequence[str | None]) -> None:
        self._function = function
        self._tasks = tasks
        self._plain = plain_tasks(tasks)
        self._waiting = Waiting(self._plain)
        self._seats = [_Seat(device) for device in devices[: len(tasks)]]
        self._ended: dict[int, list[str]] = {}  # how the workers ended that had a task
        self._share = share_of_processors(max(1, len(self._seats)))
        self._environment = {"OMP_NUM_THREADS": threads_variable(self._share)}
        # Interrupts strike the main thread alone: a thread of its own always gets a worker that it began into its seat.
        # It lives as long as the workers, which end with the thread that started them.
        self._starter = ThreadPoolExecutor(1, "trajcheck-workers", initializer=hold_signals)
        self._starting = Lock()
        self._closed = False

    def outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        try:
            left = len(self._tasks)
            while left:
                for seat in self._seats:
                    self._hand(seat)
                for seat in self._heard():
                    finished = self._listen(seat)
                    self._hand(seat)
                    if finished is not None:
                        place, outcome = finished
                        left -= 1
                        yield self._tasks[place], outcome
        finally:
            with self._starting:  # an interrupt does not wait for a worker that is being started
                self._closed = True
            workers = [seat.worker for seat in self._seats if seat.worker]
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.reap()
            self._starter.shutdown()

    def _hand(self, seat: _Seat) -> None:
        """The seat's worker is given a task if it waits for one and there is one; it is started where there is none."""
        if seat not in self._seats or (seat.place is None and not self._waiting):
            return
        if seat.worker is None:
            self._start(seat)
        elif seat.started and not seat.busy:
            if seat.place is None:
                seat.place = self._waiting.take(seat.stay)
            seat.busy = True
            message: dict[str, Any] = {"threads": self._share, **self._plain[seat.place]}
            if seat.device is not None:
                message["device"] = seat.device
            seat.worker.send(message)

    def _start(self, seat: _Seat) -> None:
        seat.started = seat.busy = False
        try:
            self._starter.submit(self._seat_worker, seat).result()
        except OSError as error:
            self._failed_start(seat, f"could not be started ({error})")

    def _seat_worker(self, seat: _Seat) -> None:
        with self._starting:
            if not self._closed:
                seat.worker = WorkerProcess(self._function, self._environment)

    def _failed_start(self, seat: _Seat, how: str) -> None:
        seat.failed_starts.append(how)
        if len(seat.failed_starts) < ATTEMPTS:
            return
        self._seats = [other for other in self._seats if other is not seat]
        self._waiting.leave(seat.stay)
        if seat.place is not None:
            self._waiting.put_back(seat.place)
        if not self._seats:
            raise RunnerError(
                f"no worker process comes to life: {lost(seat.failed_starts).reason} before it was given a task; "
                "try fewer workers, and see what else takes this machine's memory"
            )

    def _heard(self) -> list[_Seat]:
        """Seats whose workers have something to say, or have ended."""
        of = {seat.worker.connection: seat for seat in self._seats if seat.worker}
        heard = [of[connection] for connection in wait(list(of), _LOOK)]  # type: ignore[index]
        return heard or [seat for seat in of.values() if seat.worker and seat.worker.has_ended()]

    def _listen(self, seat: _Seat) -> tuple[int, Outcome] | None:
        """What became of the seat's task; None where it has not come to an end."""
        assert seat.worker is not None
        try:
            outcome = seat.worker.receive()
        except EndedError as ended:
            return self._mourn(seat, str(ended))
        if not seat.started:
            if isinstance(outcome, Failed):
                raise outcome.error
            seat.started, seat.failed_starts = True, []
            return None
        place, seat.place, seat.busy = seat.place, None, False
        assert place is not None
        return place, outcome

    def _mourn(self, seat: _Seat, how: str) -> tuple[int, Outcome] | None:
        """A worker has ended: its task waits in the seat for the next one, or is lost."""
        finished: tuple[int, Outcome] | None = None
        seat.worker = None
        if not seat.started:
            self._failed_start(seat, how)
        elif seat.busy and seat.place is not None:
            deaths = self._ended.setdefault(seat.place, [])
            deaths.append(how)
            if len(deaths) >= ATTEMPTS:
                finished, seat.place = (seat.place, lost(deaths)), None
        return finished
