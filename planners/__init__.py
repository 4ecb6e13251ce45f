"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""

# ruff: isort: skip_file
from jepa_mpc.planners.base import PLANNERS as PLANNERS, Planner as Planner, PlannerConfig as PlannerConfig
from jepa_mpc.planners.base import CostFn as CostFn, Plan as Plan, require_floats as require_floats, shift as shift
from jepa_mpc.planners.cem import CEMConfig as CEMConfig
from jepa_mpc.planners.gradient import CEMGradientConfig as CEMGradientConfig, GradientConfig as GradientConfig
from jepa_mpc.planners.icem import ICEMConfig as ICEMConfig
from jepa_mpc.planners.mppi import MPPIConfig as MPPIConfig
from jepa_mpc.planners.costs import REDUCTIONS as REDUCTIONS, effort as effort
