"""Robots that plan from pixels: a world model learned from reward-free trajectories, and search in its latent space.

from jepa_mpc import PlanningAgent, make
"""

import importlib
from typing import Any

# Each public name and the module that it stands in, imported when the name is first used.
_PUBLIC = {
    "AgentConfig": "agent.agent_config",
    "PlanningAgent": "agent.planning_agent",
    "Calibration": "agent.calibration",
    "Numbers": "agent.numbers",
    "Driver": "agent.robot",
    "ExportConfig": "agent.export",
    "ExportedAgent": "agent.exported",
    "export": "agent.export",
    "collect": "agent.collect",
    "CollectConfig": "agent.collect",
    "DATA_POLICIES": "agent.data_policies",
    "RIVALS": "agent.rivals",
    "TaskSpec": "envs.task",
    "get_task": "envs.registry",
    "make": "envs.registry",
    "register": "envs.registry",
    "RunConfig": "eval.run_planning",
    "evaluate": "eval.run_planning",
    "OBJECTIVES": "agent.objectives",
    "PLANNERS": "planners",
    "JEPA": "world_model.model.jepa",
    "REGULARIZERS": "world_model.regularizers",
    "SIGReg": "world_model.regularizers.sigreg",
    "TRAIN_PRESETS": "world_model.training.config",
    "TrainConfig": "world_model.training.config",
    "load_checkpoint": "world_model.checkpoint",
    "train": "world_model.train",
    "UserError": "errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jepa_mpc' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jepa_mpc.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
