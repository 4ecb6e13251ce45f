"""How the agent plans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from jepa_mpc import envs
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.cli import choose
from jepa_mpc.errors import UserError
from jepa_mpc.planners import PLANNERS, REDUCTIONS, CEMConfig, ICEMConfig, PlannerConfig
from jepa_mpc.registry import Registry
from jepa_mpc.settings import Count, Natural, NonNegative, Positive, Share, read, to_json


@dataclass(frozen=True)
class AgentConfig:
    """How the agent plans."""

    inline: ClassVar[bool] = True  # as in `settings.Choice`

    planner: PlannerConfig = field(default_factory=ICEMConfig)
    """Search algorithm, which --planner chooses by name."""
    objective: str = "reachability"
    """Distance to the goal: reachability, the learned number of blocks to it; latent, that between embeddings; or
    `module:function`."""
    reduction: str = "mean"
    """How the distance counts over the horizon: mean, minimum (at its nearest) or terminal (at the end)."""
    several_goals: Literal["nearest", "mean"] = "nearest"
    """Where there are several goal pictures: whether a plan must lead to any of them, or near all."""
    effort_weight: NonNegative = 0.3
    """Weight of the mean square action beside the distance."""
    horizon: Count = 2
    """Blocks to look ahead."""
    receding_horizon: Count = 1
    """Blocks to execute before planning anew."""
    history_len: Count = 3
    """Real frames that the predictor sees; more than one shows velocity."""
    blocks_ahead: Natural = 0
    """Blocks that are on their way already when a picture comes, as on a robot that acts while it sees and decides: the
    model foresees where they lead, and the plan begins behind them."""
    offset_rate: Share = 0.0
    """How fast, 0 to 1, what predictions have missed by is added to those to come; 0: not at all. What a model always
    gets wrong, such as a pose that it thinks is nearer, then no longer stops the agent short of the goal."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the predictor's products; auto: bfloat16 where the hardware has it and the predictor is wide."""
    warm_start: Literal["none", "inverse", "gcbc", "retrieval"] = "none"
    """A policy whose proposals compete in every search, the checkpoint's file of that name; with --num-iterations 0
    there is no search, and it decides alone."""
    deadline_ms: Positive | None = None
    """Time for a decision: rounds of the search that do not fit are left out. Plans then depend on the machine."""

    def settings(self) -> dict[str, Any]:
        """Returns all settings, flat, for results."""
        flat = to_json(self)
        planner = flat.pop("planner")
        return {"planner": planner.pop("name"), **flat, **planner}

    def searched_by(self, kind: type[PlannerConfig]) -> "AgentConfig":
        """Returns these settings with another search, which keeps of the one before what both have."""
        PLANNERS.held(kind, kind)
        shared = {each.name for each in fields(kind)} & {each.name for each in fields(self.planner)}
        return replace(self, planner=kind(**{name: getattr(self.planner, name) for name in shared}))


# Named ways to plan. "lewm" is LeWorldModel's (arXiv 2603.19312): CEM, the distance at the end of five blocks, all
# rounds, all blocks executed.
AGENT_PRESETS: Registry[AgentConfig] = Registry("planning preset")
AGENT_PRESETS.register(
    "lewm",
    AgentConfig(
        planner=CEMConfig(num_samples=300, num_iterations=30, num_elites=30, init_std=1.0, min_std=1e-9),
        objective="latent",
        reduction="terminal",
        effort_weight=0.0,
        horizon=5,
        receding_horizon=5,
    ),
)


# What chooses a way to plan, or a search, by name.
PLANNING_CHOICES: dict[str, Registry[Any]] = {"--preset": AGENT_PRESETS, "--planner": PLANNERS}


def choose_planning(args: Sequence[str], own: Callable[[], AgentConfig]) -> tuple[list[str], AgentConfig]:
    """Takes the options that choose by name out of a command's words.

    Returns the other words, and the settings that those change: a preset's, or else one's own, with the search chosen.
    """
    words, chosen = choose(args, PLANNING_CHOICES)
    agent = chosen.get("--preset") or own()
    kind = chosen.get("--planner")
    return words, agent.searched_by(kind) if kind else agent


def read_planning(planning: Mapping[str, Any], file: object) -> AgentConfig:
    """Returns the settings that differ from the defaults in what a checkpoint says of them.

    Raises `UserError`, which names the file, on what these cannot be, and on names of code that is not loaded.
    """
    config = read(AgentConfig, dict(planning), f"the planning of {file}")
    for registry, name in ((OBJECTIVES, config.objective), (REDUCTIONS, config.reduction)):
        try:
            registry.loaded(name)
        except UserError as error:
            raise UserError(f"the planning of {file}: {error}") from error
    return config


def planning_of(task: str) -> AgentConfig:
    """Returns the settings that a task is planned with unless others are given. A task is code: it may name more of it,
    which is then imported.
    """
    planning = envs.get_task(task).planning
    if isinstance(planner := planning.get("planner"), Mapping) and ":" in (name := str(planner.get("name"))):
        PLANNERS[name]
    return read(AgentConfig, dict(planning), f"the planning of task {task}")
