"""python -m benchmarks cluster: what it says of tasks that are lost and of tables that differ, without its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import benchmarks.cluster as cluster
from trajcheck.runners import Done, Task


class Nodes:
    address = "head:1"

    def __init__(self) -> None:
        self.members = ["head", "node"]
        self.said: list[str] = []

    def lose(self) -> None:
        self.said.append("lose")

    def add(self) -> None:
        self.said.append("add")


@pytest.mark.parametrize(("twice", "lost", "wrong"), [([], [], 0), ([3], [], 1), ([], [1, 2], 2), ([3, 4], [1], 3)])
def test_tasks_that_are_lost_or_come_twice(
    twice: list[int], lost: list[int], wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Runner:
        def __init__(self, address: str, allow: Sequence[str]) -> None:
            assert address == Nodes.address

        def map(self, function: str, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
            for task in tasks:
                for _ in range((task["number"] in twice) + (task["number"] not in lost)):
                    yield task, Done(task["number"])

    monkeypatch.setattr(cluster, "RayRunner", Runner)
    nodes: Any = Nodes()
    rows = cluster.empty_tasks(nodes, 20)
    assert rows[0].measured == wrong and rows[0].met is (not wrong)
    assert nodes.said == ["lose", "add"]


def test_tables_that_differ(tmp_path: Path) -> None:
    for way, text in (("one", "a"), ("other", "b")):
        folder = tmp_path / way / "real" / "run"
        folder.mkdir(parents=True)
        (folder / "steps.csv").write_text("same")
        (folder / "layers.csv").write_text(text)
    (tmp_path / "other" / "real" / "run" / "more.csv").write_text("")
    assert cluster._differing(tmp_path, ["one", "other"]) == 2
    assert cluster._differing(tmp_path, ["one", "one"]) == 0
