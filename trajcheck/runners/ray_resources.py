"""What a task asks of a Ray cluster, and whether any node has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trajcheck.errors import UsageError


@dataclass(frozen=True)
class TaskResources:
    """What one task is given: processors, GPUs, bytes of memory (0: whatever there is)."""

    processors: int = 1
    gpus: float = 0
    memory: int = 0

    def __post_init__(self) -> None:
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UsageError(f"{self.gpus} GPUs for each task; expected a whole number, or a share between 0 and 1")
        if self.memory < 0:
            raise UsageError(f"{self.memory} bytes of memory for each task; expected a positive number")

    @property
    def resources(self) -> dict[str, float]:
        """Under Ray's names, those that are asked for."""
        asked = {"CPU": self.processors, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in asked.items() if amount}

    def slots(self, nodes: Mapping[str, Mapping[str, float]]) -> int:
        """How many such tasks fit on the nodes at a time."""
        return sum(
            int(min(has.get(name, 0) / amount for name, amount in self.resources.items())) for has in nodes.values()
        )

    def refusal(self, nodes: Mapping[str, Mapping[str, float]]) -> str:
        """The message where no node has as much."""
        listed = "; ".join(f"{node}: {_words(has)}" for node, has in nodes.items()) or "none"
        return f"no node of the Ray cluster has what each task asks for, {_words(self.resources)}. Its nodes: {listed}"


def alive_nodes() -> dict[str, dict[str, float]]:
    """What each living node of the connected cluster has in all."""
    import ray

    return {f"{node['NodeName']} ({node['NodeID'][:8]})": node["Resources"] for node in ray.nodes() if node["Alive"]}


def _words(resources: Mapping[str, float]) -> str:
    counts = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    if resources.get("memory"):
        counts.append(f"{resources['memory'] / 1e9:.3g} GB of memory")
    return ", ".join(counts) or "nothing to give"
