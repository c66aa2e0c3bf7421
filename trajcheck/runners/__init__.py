"""The seam on which work runs: independent tasks go in, outcomes come out as they finish.

    local.py         in this process, one task after another
    processes.py     worker processes of this machine; worker.py is what each of them does
    ray_cluster.py   a Ray cluster, or a Ray of this machine (extra `ray`)

    runner = make_runner("local", workers=2)
    with closing(runner.map("trajcheck.module:function", tasks)) as outcomes:
        for task, outcome in outcomes:
            ...                        # Done(value), Failed or Lost; every task once, in any order

A task is a small mapping that JSON can hold, never a tensor, and is handed to the function as JSON gives it back (a
tuple as a list). Keys that runners know:

    name      for messages; required
    group     tasks of one group, those of one run, go to the same worker where that costs nobody's turn
    device    set by a runner that gives each worker a device of its own
    threads   set to the worker's share of the processors, where the task does not say, by a runner with several workers

Closing the iterator stops the workers at once. A signal handler that wants work to stop raises something that is not
an Exception, such as KeyboardInterrupt: an Exception inside a task of `LocalRunner` is that task's failure.
"""

from trajcheck.runners.choice import make_runner
from trajcheck.runners.outcomes import Done, Failed, Lost, Outcome, Runner, Task

__all__ = ["Done", "Failed", "Lost", "Outcome", "Runner", "Task", "make_runner"]
