"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""

from jepa_mpc.planners.base import PLANNERS, CostFn, Plan, Planner, PlannerConfig, shift
from jepa_mpc.planners.cem import CEMConfig
from jepa_mpc.planners.gradient import CEMGradientConfig, GradientConfig
from jepa_mpc.planners.icem import ICEMConfig
from jepa_mpc.planners.mppi import MPPIConfig
from jepa_mpc.planners.objectives import REDUCTIONS, effort

__all__ = [
    "PLANNERS",
    "REDUCTIONS",
    "CEMConfig",
    "CEMGradientConfig",
    "CostFn",
    "GradientConfig",
    "ICEMConfig",
    "MPPIConfig",
    "Plan",
    "Planner",
    "PlannerConfig",
    "effort",
    "shift",
]
