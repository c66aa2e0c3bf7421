"""Fuzz every reader for as long as one likes: `python tests/fuzzing/fuzz.py --minutes 10`.

Cases are numbered; a case is its reader, its number and nothing else, and `--reader NAME --case N` makes it again.
They run in worker processes with a limit on memory, which are replaced when they die: a crash of the interpreter is a
fault like any other. Exit code 1 where there was any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from fuzz_guard import fault
from fuzz_mutations import mutated
from fuzz_readers import READERS

#: Bytes that a worker may map beyond what it has when it starts, and cases before it is replaced.
ROOM, CASES = 2 << 30, 3000


def input_of(reader: str, case: int) -> bytes:
    """The changed bytes of a case."""
    stream = Random(f"{reader} {case}")
    seeds = READERS[reader].seeds()
    return mutated(stream.choice(seeds), seeds, stream)


def _work(pipe: Connection) -> None:
    """Answer (reader, case) with what went wrong, until None comes."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    while (asked := pipe.recv()) is not None:
        pipe.send(fault(READERS[asked[0]].read, input_of(*asked), memory=False))


class Worker:
    """A process that makes cases; a fork, so that everything is imported already."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def fault(self, reader: str, case: int, patience: float = 60.0) -> str | None:
        """What went wrong with a case; where the process ended, or did not answer, it is another one afterwards."""
        self._pipe.send((reader, case))
        try:
            if self._pipe.poll(patience):
                return self._pipe.recv()
            found = f"no answer after {patience:g} s"
        except (EOFError, OSError):
            self._process.join()
            found = f"the process ended with {self._process.exitcode}"
        self.replace()
        return found

    def replace(self) -> None:
        self._process.kill()
        self._process.join()
        self._start()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="other cases than those of another seed")
    parser.add_argument("--reader", choices=sorted(READERS), help="this one alone")
    parser.add_argument("--case", type=int, help="with --reader: this case alone, in this process")
    options = parser.parse_args()
    if options.case is not None:
        found = fault(READERS[options.reader].read, input_of(options.reader, options.case))
        print(found or "no fault")
        return int(found is not None)
    names = [options.reader] if options.reader else sorted(READERS)
    for name in names:
        for seed in READERS[name].seeds():
            if found := fault(READERS[name].read, seed, memory=False):
                print(f"{name}: a whole input: {found}")
                return 1
    return _run(names, options.minutes, options.seed)


def _run(names: list[str], minutes: float, seed: int) -> int:
    stream, until = Random(seed), time.monotonic() + 60 * minutes
    counts: Counter[str] = Counter()
    faults: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in names}  # its last line: first case, count
    worker = Worker()
    while time.monotonic() < until:
        name = stream.choices(names, [READERS[each].share for each in names])[0]
        case = 10**9 * seed + counts[name]
        counts[name] += 1
        if (found := worker.fault(name, case)) is not None:
            line = found.strip().splitlines()[-1][:160]
            if line not in faults[name]:
                print(f"--- {name} --case {case}\n{found}", flush=True)
            first, count = faults[name].get(line, (case, 0))
            faults[name][line] = first, count + 1
        if counts.total() % CASES == 0:
            worker.replace()
    print(f"{'reader':20} {'cases':>8}  faults")
    for name in names:
        print(f"{name:20} {counts[name]:8,}  {sum(count for _, count in faults[name].values())}")
    print(f"{'all':20} {counts.total():8,}  {sum(count for each in faults.values() for _, count in each.values())}")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
