"""How the agent plans: the settings, and those of the tasks for which the defaults do not do."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jepa_mpc.planners import PlannerConfig

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

_CONFIGS = {
    # Blocks of 25 numbers want more samples; effort would hold the gripper half open.
    "cube": AgentConfig(effort_weight=0.0, search=PlannerConfig(num_samples=256, num_iterations=6, num_elites=16)),
    # The same; the block is moved in passing, so the nearest of the blocks ahead counts, and pushes are held.
    "push_t": AgentConfig(
        objective="latent",
        reduction="minimum",
        effort_weight=0.1,
        horizon=5,
        search=PlannerConfig(num_samples=256, num_iterations=6, num_elites=16, noise_exponent=1.0),
    ),
    # Where force is scarce, what pays off shows later.
    "pendulum": AgentConfig(horizon=5),
    "point_mass": AgentConfig(horizon=5),
    # Of seven torques, a search finds few that push anything; the policy has seen many that did.
    "gym/Pusher-v5": AgentConfig(warm_start="gcbc", search=PlannerConfig(num_iterations=0)),
    "cartpole": AgentConfig(horizon=6, effort_weight=0.0, search=PlannerConfig(num_samples=128, num_iterations=4)),
}


def config_for(task: str) -> AgentConfig:
    """The settings that a task is planned with unless others are given."""
    return _CONFIGS.get(task, AgentConfig())
