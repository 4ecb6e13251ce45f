"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""

from jepa_mpc.planners.base import CostFn, Plan, Planner, PlannerConfig, shift
from jepa_mpc.planners.cem import CEM
from jepa_mpc.planners.gradient import CEMGradient, Gradient
from jepa_mpc.planners.icem import ICEM
from jepa_mpc.planners.mppi import MPPI
from jepa_mpc.planners.objectives import REDUCTIONS, effort

PLANNERS: dict[str, type[Planner]] = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "cem-gradient": CEMGradient,
}

__all__ = ["PLANNERS", "REDUCTIONS", "CostFn", "Plan", "Planner", "PlannerConfig", "effort", "shift"]
