"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""

from planners.base import CostFn, Plan, Planner, PlannerConfig, shift
from planners.cem import CEM
from planners.gradient import CEMGradient, Gradient
from planners.icem import ICEM
from planners.mppi import MPPI
from planners.objectives import REDUCTIONS, effort

PLANNERS: dict[str, type[Planner]] = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "cem-gradient": CEMGradient,
}

__all__ = ["PLANNERS", "REDUCTIONS", "CostFn", "Plan", "Planner", "PlannerConfig", "effort", "shift"]
