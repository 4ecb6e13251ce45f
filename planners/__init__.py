"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""

from planners.base import CostFn, Plan, Planner, PlannerConfig, shift
from planners.cem import CEM
from planners.mppi import MPPI
from planners.objectives import OBJECTIVES

PLANNERS: dict[str, type[Planner]] = {"cem": CEM, "mppi": MPPI}

__all__ = ["CEM", "MPPI", "OBJECTIVES", "PLANNERS", "CostFn", "Plan", "Planner", "PlannerConfig", "shift"]
