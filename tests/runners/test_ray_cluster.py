"""trajcheck/runners/ray_cluster.py: a Ray of two nodes on this machine, and one that is started for the work."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mapped_functions
import pytest
from places import HELPERS
from processes_seen import eventually, runs

from trajcheck.errors import NotFiniteError, RunnerError, UsageError
from trajcheck.runners import Done, Failed, Lost
from trajcheck.runners.ray_cluster import RayRunner
from trajcheck.runners.ray_folder import temporary_folder
from trajcheck.runners.ray_session import ray_session
from trajcheck.runners.ray_start import only_what_tasks_need

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'trajcheck[ray]'")
ALLOW = (mapped_functions.THIS,)
MARK = f"TRAJCHECK_TESTS_RAY={os.getpid()}"  # in the environment of all that is started here


def mapped(name: str) -> str:
    return f"{mapped_functions.THIS}:{name}"


def ray_processes() -> set[int]:
    """Those of any Ray that these tests have started, or that the runner has for them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "environ").read_bytes()
        except OSError:
            continue
        if MARK.encode() in words and runs(int(path.name)):
            found.add(int(path.name))
    return found - {os.getpid()}


def ray_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("trajcheck-ray-*")}


@pytest.fixture(scope="module", autouse=True)
def apart() -> Iterator[None]:
    """Neither processes nor folders of another Ray on this machine are taken for those of these tests."""
    folder = tempfile.mkdtemp(prefix="t", dir="/tmp")  # short enough for the runner, whose sockets lie below
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*MARK.split("="))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes(apart: None) -> Iterator[Any]:
    """A head of one processor; more nodes are each test's affair. They are started as the runner's own Ray is, without
    what no task needs."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="trajcheck-test-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch, only_what_tasks_need():
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HELPERS), os.environ.get("PYTHONPATH")])))
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_health_check_period_ms", "500")  # a dead node is known to be dead after 1 s, not 15
        patch.setenv("RAY_health_check_failure_threshold", "2")
        patch.setenv("RAY_enable_worker_prestart", "0")  # each costs an import of Ray
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "memory": 2_000_000_000})
        yield cluster
        ray.shutdown()
        cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(nodes: Any) -> Any:
    """To be joined by the test."""
    import ray

    ray.shutdown()
    return nodes


@pytest.fixture
def joined(nodes: Any) -> Any:
    """This process has joined it, and stays for the tests that follow: every connection has workers of its own, which
    import Ray."""
    import ray

    if not ray.is_initialized():
        ray.init(nodes.address, log_to_driver=False, logging_level="error")
    return nodes


def on(cluster: Any, **options: Any) -> RayRunner:
    return RayRunner(cluster.address, allow=ALLOW, **options)


def test_every_task_has_its_own_outcome_once(joined: Any) -> None:
    tasks = [{"name": f"task {n}", "number": n} for n in range(200)]
    outcomes = list(on(joined).map(mapped("square"), tasks))
    assert sorted(task["number"] for task, _ in outcomes) == list(range(200))
    assert all(outcome == Done(task["number"] ** 2) for task, outcome in outcomes)


def test_what_a_function_raises_survives_and_a_bug_is_called_one(joined: Any) -> None:
    tasks = [{"name": how, "how": how} for how in ("trajcheck", "bug", "exit")]
    outcomes: dict[str, Failed] = {}
    for task, outcome in on(joined).map(mapped("fail"), tasks):
        assert isinstance(outcome, Failed)
        outcomes[task["name"]] = outcome
    assert type(outcomes["trajcheck"].error) is NotFiniteError and not outcomes["trajcheck"].is_bug
    assert outcomes["bug"].kind == "KeyError" and "in fail" in outcomes["bug"].where
    assert outcomes["exit"].kind == "SystemExit"


def test_results_huge_or_not_to_be_sent(joined: Any) -> None:
    size = 20_000_000
    for task, outcome in on(joined).map(mapped("huge"), [{"name": "a", "number": n, "size": size} for n in (1, 2, 3)]):
        assert outcome == Done(bytes([task["number"]]) * size)
    for name in ("no_json", "endless"):
        ((_, outcome),) = on(joined).map(mapped(name), [{"name": "a"}])
        assert isinstance(outcome, Failed) and outcome.is_bug


def test_a_killed_worker_costs_a_second_try_and_three_are_enough(joined: Any, tmp_path: Path) -> None:
    times = {"well": 0, "once": 1, "always": 99}
    tasks = [{"name": name, "folder": str(tmp_path), "times": times[name]} for name in times]
    outcomes = {task["name"]: outcome for task, outcome in on(joined).map(mapped("die"), tasks)}
    lost = outcomes.pop("always")
    assert lost == Lost("worker died (out of memory?) three times")
    assert outcomes == {"well": Done("alive"), "once": Done("alive")}
    assert {name: len(list(tmp_path.glob(f"{name}-*"))) for name in times} == {"well": 1, "once": 2, "always": 3}


def test_what_no_node_can_give_is_refused_with_what_they_have(joined: Any) -> None:
    tasks = [{"name": "a", "number": 1}]
    for options, asked in [({"gpus_per_task": 2}, "1 CPU, 2 GPU"), ({"memory": 10**15}, "1e+06 GB of memory")]:
        with pytest.raises(UsageError) as refused:
            list(on(joined, **options).map(mapped("square"), tasks))
        assert asked in str(refused.value)
        assert "): 1 CPU, 2 GB of memory" in str(refused.value)


@pytest.mark.parametrize("gpus", [-1, 1.5])
def test_gpus_are_whole_or_a_share_of_one(gpus: float) -> None:
    with pytest.raises(UsageError, match="GPUs for each task"):
        RayRunner(gpus_per_task=gpus)


def test_a_node_killed_in_the_middle_loses_nothing_but_its_gpus(
    joined: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that any node can do are done by the others. For those that need the one GPU (said to be there) Ray itself
    would wait for ever."""
    monkeypatch.setattr("trajcheck.runners.ray_cluster._LOOK", 0.25)
    monkeypatch.setattr("trajcheck.runners.ray_cluster._WAIT_FOR_NODES", 1.0)
    node = joined.add_node(num_cpus=2, num_gpus=1)
    runner = on(joined, gpus_per_task=1)
    outcomes = list(runner.map(mapped("seen"), [{"name": str(n)} for n in range(3)]))
    values = [outcome.value for _, outcome in outcomes if isinstance(outcome, Done)]
    assert [value["task"]["device"] for value in values] == ["cuda"] * 3

    folder = {"folder": str(tmp_path)}
    tasks = [{"name": f"t{n}", "seconds": 0.05, **folder, **({"beside": 2} if n < 2 else {})} for n in range(30)]
    bound = [{"name": f"g{n}", "seconds": 0.05} for n in range(20)]
    with (
        closing(on(joined).map(mapped("rest"), tasks)) as anywhere,
        closing(runner.map(mapped("rest"), bound)) as there,
    ):
        early = [next(anywhere) for _ in range(4)]
        first = next(there)[1]
        joined.remove_node(node, allow_graceful=False)
        done, late = [*early, *anywhere], [outcome for _, outcome in there]
    assert all(isinstance(outcome, Done) for _, outcome in done)
    assert sorted(task["name"] for task, _ in done) == sorted(str(task["name"]) for task in tasks)
    assert isinstance(first, Done) and len(late) == 19
    assert isinstance(late[-1], Lost) and "no node of the Ray cluster has" in late[-1].reason


def test_at_most_so_many_workers_run_at_a_time(joined: Any) -> None:
    outcomes = list(on(joined, workers=1).map(mapped("seen"), [{"name": str(n)} for n in range(5)]))
    assert len({outcome.value["pid"] for _, outcome in outcomes if isinstance(outcome, Done)}) == 1


def test_another_version_on_a_node_is_an_error(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trajcheck.runners.ray_cluster.__version__", "9.9")
    with pytest.raises(RunnerError, match=r"on a node of the Ray cluster; expected 9\.9"):
        list(on(joined).map(mapped("square"), [{"name": "a", "number": 3}]))


def test_a_function_that_workers_cannot_import_is_an_error(joined: Any) -> None:
    with pytest.raises(RunnerError, match=r"workers cannot import .*nothing"):
        list(on(joined).map(mapped("nothing"), [{"name": "a"}]))


def test_an_interrupt_frees_the_workers(joined: Any, tmp_path: Path) -> None:
    old = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(on(joined).map(mapped("rest"), [{"name": "a", "seconds": 600, "folder": str(tmp_path)}]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert eventually(lambda: not any(runs(int(path.read_text())) for path in tmp_path.glob("*.pid")))


def test_closing_early_frees_the_workers_and_leaves_the_cluster(cluster: Any, tmp_path: Path) -> None:
    tasks = [{"name": f"t{n}", "seconds": 0 if n == 0 else 600, "folder": str(tmp_path)} for n in range(3)]
    outcomes = on(cluster).map(mapped("rest"), tasks)
    next(outcomes)
    assert eventually(lambda: (tmp_path / "t1.pid").exists())
    outcomes.close()
    pid = int((tmp_path / "t1.pid").read_text())
    assert eventually(lambda: not runs(pid))


def test_one_connection_serves_several_maps(cluster: Any) -> None:
    """Of the cluster that the test before has left."""
    import ray

    with ray_session(cluster.address, 1):
        for runner in (on(cluster), RayRunner(allow=ALLOW)):
            assert len(list(runner.map(mapped("square"), [{"name": "a", "number": 3}]))) == 1
            assert ray.is_initialized()
        with pytest.raises(UsageError, match="is connected to the Ray at"):
            list(RayRunner("elsewhere:1", allow=ALLOW).map(mapped("square"), [{"name": "a", "number": 3}]))
    assert not ray.is_initialized()


def test_a_cluster_that_does_not_answer_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(RunnerError, match=r"no Ray cluster can be joined at 127\.0\.0\.1"):
        list(RayRunner(f"127.0.0.1:{port}", allow=ALLOW).map(mapped("square"), [{"name": "a", "number": 3}]))
    assert time.monotonic() - began < 10


def test_a_cluster_whose_head_is_lost_is_an_error(cluster: Any, tmp_path: Path) -> None:
    """The last that is done with it. Ray itself would end the process after a minute."""
    code = f"""
from trajcheck.errors import RunnerError
from trajcheck.runners import ray_cluster
ray_cluster._LOOK, ray_cluster._WAIT_FOR_HEAD = 0.5, 2.0
tasks = [{{"name": str(n), "seconds": 0.1, "folder": {str(tmp_path)!r}}} for n in range(1000)]
try:
    list(ray_cluster.RayRunner({cluster.address!r}, allow=["mapped_functions"]).map("mapped_functions:rest", tasks))
except RunnerError as error:
    print(error)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as caller:
        assert eventually(lambda: len(list(tmp_path.glob("*.pid"))) > 5, 60, 0.1)
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        said, errors = (each.decode() for each in caller.communicate(timeout=120))
    assert caller.returncode == 0, errors
    assert "does not answer any more" in said or "cluster is gone" in said


def test_a_ray_started_for_the_work_leaves_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # by which Ray tells a worker of its processors
    processes, folders, environment = ray_processes(), ray_folders(), dict(os.environ)
    old = signal.signal(signal.SIGTERM, _stop)
    try:
        outcomes = RayRunner(workers=1, allow=ALLOW).map(mapped("seen"), [{"name": str(n)} for n in range(20)])
        first = next(outcomes)[1]
        assert ray_processes() - processes and ray_folders() > folders
        assert signal.getsignal(signal.SIGTERM) is _stop and dict(os.environ) == environment
        assert isinstance(first, Done) and first.value["task"]["threads"] == int(first.value["threads"])
        _check_nobody_else_gets_in(ray_folders() - folders, ray_processes() - processes | {os.getpid()})
        outcomes.close()  # in the middle
        assert signal.getsignal(signal.SIGTERM) is _stop
    finally:
        signal.signal(signal.SIGTERM, old)
    assert eventually(lambda: ray_processes() <= processes, pause=0.25)
    assert ray_folders() == folders
    assert capfd.readouterr() == ("", "")


def _check_nobody_else_gets_in(folders: set[str], processes: set[int]) -> None:
    """To the Ray that this process has started: not from another machine, not without the token, not into its files."""
    import ray

    (name,) = folders
    folder = Path(tempfile.gettempdir()) / name
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    places = {place for place, process in listening() if process in processes}
    assert places == {"127.0.0.1"}
    code = f"""
from ray._raylet import GcsClient
try:
    print("got in:", GcsClient(address={address!r}).get_all_node_info())
except Exception as error:
    print(type(error).__name__)
"""
    without = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    environment = {**without, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "AuthenticationError", done


def listening() -> set[tuple[str, int]]:
    """(address, process) of every TCP socket that listens, as far as this user's."""
    processes = {}
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            processes[os.readlink(path)] = int(path.parts[2])
        except OSError:
            continue
    found = set()
    for line in [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]:
        words = line.split()
        if words[3] == "0A" and (process := processes.get(f"socket:[{words[9]}]")):
            address = bytes.fromhex(words[1].partition(":")[0][-8:])[::-1]  # of IPv4, also within IPv6
            found.add((".".join(map(str, address)), process))
    return found


def test_a_ray_without_passwords_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("2.49.2", "2.51.1", "1.13.0"):
        monkeypatch.setattr("trajcheck.runners.ray_session.version", lambda name, number=number: number)
        with pytest.raises(UsageError, match=f"Ray {number} knows no passwords.* 2.52 or newer"):
            RayRunner()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    """Ray's own agents notice within a minute; what holds memory or a processor is gone at once. Of the folder, the
    next Ray rids us."""
    before, folders = ray_processes(), ray_folders()
    code = f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
from trajcheck.runners.ray_cluster import RayRunner
tasks = [{{"name": name, "seconds": 600, "folder": {str(tmp_path)!r}}} for name in "a"]
list(RayRunner(workers=1, allow=["mapped_functions"]).map("mapped_functions:rest", tasks))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    parent = subprocess.Popen([sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)})
    assert eventually(lambda: len(list(tmp_path.glob("*.pid"))) == 1, 60, 0.1)
    assert not (tmp_path / ".ray").exists()  # where Ray keeps a password, if it is given none
    parent.kill()
    parent.wait()
    workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert eventually(lambda: not any(runs(pid) for pid in workers))
    assert eventually(lambda: all(b"agent" in _title(pid).lower() for pid in ray_processes() - before), pause=0.25)

    (left,) = ray_folders() - folders
    path = Path(tempfile.gettempdir()) / left
    with temporary_folder():
        assert path.exists()  # too young to be known as abandoned
    os.utime(path, (0, 0))
    with temporary_folder() as other:
        assert not path.exists()
        os.utime(other.parent, (0, 0))
        with temporary_folder():
            assert other.exists()  # its owner lives
    assert not other.parent.exists()


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"agent, gone"
