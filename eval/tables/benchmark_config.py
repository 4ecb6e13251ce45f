"""The settings of `eval/benchmark.py`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure bundled checkpoints, or all agents on one task, and write the table."""

    tasks: tuple[str, ...] = ("all",)
    """Tasks with a checkpoint, or all: random and do-nothing agents stand beside it."""
    task: str | None = None
    """One task, on which to measure agents against each other instead; what is not trained yet is trained first."""
    agents: str = "all"
    """With --task: agents separated by commas, or all."""
    max_seeds: int = 3
    """With --task: how many seeds of an agent's learning to train and measure, at most."""
    num_episodes: int = 200
    """Pairs in a row."""
    seed: int = 0
    """Decides the pairs and the search."""
    output: Path | None = None
    """Folder for the rows' JSON and the table; `docs/results/tasks` or `docs/results/agents/<task>` unless given."""
    cards: bool = True
    """With --tasks: write the figures under the checkpoints' cards."""

    @property
    def folder(self) -> Path:
        if self.output is not None:
            return self.output
        results = Path("docs/results")
        return results / "tasks" if self.task is None else results / "agents" / self.task.replace("/", "-")
