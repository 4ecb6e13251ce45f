"""Writes an agent to run without PyTorch: `jepa-mpc export --checkpoint reacher --output reacher.onnx`.

A file is kept only once it has decided as the agent does.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("export")

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from jepa_mpc import places
from jepa_mpc.agent.agent_config import PLANNING_CHOICES, AgentConfig, choose_planning, read_planning
from jepa_mpc.agent.exported import ExportedAgent, ExportInfo
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import option_value, parse
from jepa_mpc.errors import UserError
from jepa_mpc.files import require_new, whole
from jepa_mpc.planners.costs import LEAST_RANGE
from jepa_mpc.provenance import git_commit
from jepa_mpc.settings import checked, to_json
from jepa_mpc.world_model.checkpoint import load_info

_TOLERANCE = 1e-4  # of half an action's range, by which the median decision may differ from the agent's


@dataclass(frozen=True)
class ExportConfig:
    """Write an agent's decision as one graph: an ONNX file, which `jepa_mpc.agent.exported.ExportedAgent` runs by ONNX
    Runtime and NumPy alone.

    `--preset lewm` plans LeWorldModel's way; `--planner NAME` chooses the search, whose options follow.
    """

    output: Path
    """ONNX file to write."""
    checkpoint: Path = Path("reacher")
    """Checkpoint folder, or a bundled one's name."""
    agent: tyro.conf.OmitArgPrefixes[AgentConfig] = None  # type: ignore[assignment]  # the checkpoint's is put there
    """How to plan; the defaults are the checkpoint's."""

    def __post_init__(self):
        if self.agent is None:
            object.__setattr__(self, "agent", _own_planning(self.checkpoint))


def _own_planning(checkpoint: Path | str) -> AgentConfig:
    return read_planning(load_info(checkpoint).planning, places.checkpoint(checkpoint))


def export(config: ExportConfig) -> ExportInfo:
    """Writes the file, once it has decided as the agent does, and returns what stands in it beside the graph."""
    config = checked(config)
    require_new(config.output)
    for package in ("onnx_ir", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"to export takes {package}; install it with `pip install 'jepa-mpc[export]'`")
    if config.agent.precision == "bfloat16":
        raise UserError("an exported agent computes in float32; leave --precision out")
    if config.agent.deadline_ms is not None:
        raise UserError("a graph has no clock by which to leave rounds out; say --deadline-ms None")
    agent = PlanningAgent.load(config.checkpoint, replace(config.agent, precision="float32"))
    stored = load_info(config.checkpoint)
    assert stored.interface is not None  # else the agent would not have been loaded
    info = ExportInfo(stored.task, stored.interface, to_json(agent.config), stored.commit, git_commit())
    from jepa_mpc.agent.decision_graph import graph_of

    content = graph_of(agent, info)
    with whole(config.output) as scratch:
        scratch.write_bytes(content)
        _require_same(agent, ExportedAgent.load(scratch))
    return info


def noise_for(agent: PlanningAgent) -> NDArray[np.float32]:
    """Returns the standard normal numbers (B, S, H, A) that an agent's next search will draw, all rounds together."""
    planner = agent.controller.planner
    generators = [generator.clone_state() for generator in agent.generators]
    white = [planner.white(size, agent.config.horizon, generators) for size in planner.sizes()]
    return torch.cat(white, dim=1).numpy() if white else np.zeros((len(generators), 0), np.float32)


def difference(
    agent: PlanningAgent,
    exported: ExportedAgent,
    picture: NDArray[np.uint8] | None,
    proprio: NDArray[np.float32] | None = None,
) -> float:
    """Returns by how much the next blocks differ at most, in halves of an action's range, with the same noise."""
    half_range = np.maximum((exported.bounds.high - exported.bounds.low) / 2, LEAST_RANGE)
    block = exported.act(picture, proprio, noise_for(agent))
    return float(np.abs((block - agent.act(picture, proprio)) / half_range).max())


def _require_same(agent: PlanningAgent, exported: ExportedAgent) -> None:
    """Raises `UserError` unless a file decides as its agent does. Where two candidates cost the same up to rounding, a
    decision may be another; if most are, the agent is no function of what it is given.
    """
    size, config, rng = exported.info.interface.picture_size, agent.config, np.random.default_rng(0)
    num_decisions = 2 * (config.history_len + config.receding_horizon)
    goal, *pictures = rng.integers(0, 256, (1 + num_decisions, 1, *size, 3), np.uint8)
    felt = rng.normal(size=(1, agent.num_proprio)).astype(np.float32) if agent.num_proprio else None
    for each in (agent, exported):
        each.reset(goal, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the safe action stands in for
        seen = [*pictures, None, pictures[0]]  # one does not come
        told = [(picture, None if picture is None else felt) for picture in seen]
        found = float(np.median([difference(agent, exported, *each) for each in told]))
    if not found <= _TOLERANCE:
        raise UserError(
            f"the graph does not act as the agent does, but {found:.2g} of half the range beside it; a search or an "
            "objective that draws random numbers, or remembers anything, is no graph"
        )


def main(args: Sequence[str]) -> None:
    checkpoint = Path(option_value(args, "--checkpoint") or ExportConfig.checkpoint)
    words, agent = choose_planning(args, lambda: _own_planning(checkpoint))
    default = ExportConfig(tyro.MISSING, checkpoint, agent)
    config = parse(ExportConfig, words, default, names=PLANNING_CHOICES)
    info = export(config)
    megabytes = config.output.stat().st_size / 1e6
    print(f"wrote {config.output}: task {info.task}, {megabytes:.1f} MB, decides as the agent does")  # noqa: T201
