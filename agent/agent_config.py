"""How the agent plans."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jepa_mpc.envs.task import TaskSpec
from jepa_mpc.planners import PlannerConfig
from jepa_mpc.settings import read

PlannerName = Literal["cem", "icem", "mppi", "gradient", "cem-gradient"]
ObjectiveName = Literal["reachability", "latent"]
ReductionName = Literal["mean", "minimum", "terminal"]


@dataclass(frozen=True)
class AgentConfig:
    """How the agent plans."""

    planner: PlannerName = "icem"
    """Search algorithm."""
    objective: ObjectiveName = "reachability"
    """Distance to the goal: the learned number of blocks to it, or that between embeddings."""
    reduction: ReductionName = "mean"
    """The distance counts on average over the horizon, at its nearest, or at the horizon's end."""
    effort_weight: float = 0.3
    """Weight of the mean square action beside the distance."""
    horizon: int = 2
    """Blocks to look ahead."""
    receding_horizon: int = 1
    """Blocks to execute before planning anew."""
    history_len: int = 3
    """Real frames that the predictor sees; more than one shows velocity."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the predictor's products; auto: bfloat16 where the hardware has it and the predictor is wide enough."""
    warm_start: Literal["none", "inverse", "gcbc"] = "none"
    """A policy whose proposal competes in every search, the checkpoint's file of that name; with --num-iterations 0
    there is no search, and it decides alone."""
    deadline_ms: float | None = None
    """Time for a decision: rounds of the search that do not fit are left out. Plans then depend on the machine."""
    search: PlannerConfig = field(default_factory=PlannerConfig)

    def settings(self) -> dict[str, Any]:
        """All settings, flat, for results."""
        flat = asdict(self)
        return {**flat, **flat.pop("search")}


# LeWorldModel's way (arXiv 2603.19312): CEM, the distance at the end of five blocks, all rounds, all blocks executed.
PAPER_CONFIG = AgentConfig(
    planner="cem",
    objective="latent",
    reduction="terminal",
    effort_weight=0.0,
    horizon=5,
    receding_horizon=5,
    search=PlannerConfig(num_samples=300, num_iterations=30, num_elites=30, init_std=1.0, min_std=1e-9),
)


def config_for(spec: TaskSpec) -> AgentConfig:
    """Returns the settings that a task is planned with unless others are given."""
    planner = {"name": AgentConfig.planner, **spec.planning.get("planner", {})}
    name = planner.pop("name")
    settings = {**spec.planning, "planner": name, "search": planner}
    return read(AgentConfig, settings, f"the planning of task {spec.name}")
