"""stable-worldmodel's planner on a model of given sizes, from a checkout of theirs, to time beside ours.

Its planning and LeWM modules need einops, PyTorch and Gymnasium alone; its top-level package needs far more, so that
is passed by. Weights are random, which changes no timing.
"""

import contextlib
import importlib
import io
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.planners import CEMConfig
from jepa_mpc.world_model.model.encoder import build_encoder
from jepa_mpc.world_model.model.jepa import JEPAConfig


class _HuggingFaceSurface(nn.Module):
    """Our ViT, of the same sizes, behind the interface that LeWM asks of its encoder."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor, interpolate_pos_encoding: bool) -> types.SimpleNamespace:
        return types.SimpleNamespace(last_hidden_state=self.encoder(pixels).unsqueeze(1))


def stable_worldmodel_solve(checkout: Path, model: JEPAConfig, search: AgentConfig) -> Callable[[], float]:
    """A function that plans once with their CEM and returns the seconds that it took."""
    package = checkout / "stable_worldmodel"
    if not (package / "planning" / "evaluator.py").is_file():
        raise ValueError(f"{checkout} is no checkout of stable-worldmodel; clone it from its GitHub page")
    for name, folder in (("stable_worldmodel", package), ("stable_worldmodel.wm", package / "wm")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    try:
        lewm, parts, planning = (
            importlib.import_module(f"stable_worldmodel.{name}")
            for name in ("wm.lewm.lewm", "wm.lewm.module", "planning")
        )
    except ModuleNotFoundError as error:
        raise ValueError(f"stable-worldmodel needs {error.name}; pip install {error.name}") from error

    width, predictor, settings = model.embed_dim, model.predictor, search.planner
    assert isinstance(settings, CEMConfig)
    hidden = model.projector_hidden

    def projector() -> nn.Module:
        return parts.MLP(width, hidden, width, norm_fn=nn.BatchNorm1d)

    theirs = lewm.LeWM(
        encoder=_HuggingFaceSurface(build_encoder(model.encoder)),
        predictor=parts.Predictor(
            num_frames=3,
            depth=predictor.depth,
            heads=predictor.num_heads,
            mlp_dim=predictor.mlp_width,
            input_dim=width,
            hidden_dim=predictor.width,
            dim_head=predictor.head_dim,
        ),
        action_encoder=parts.Embedder(input_dim=model.action_dim, emb_dim=width),
        projector=projector(),
        pred_proj=projector(),
    ).eval()
    theirs.requires_grad_(False)
    solver = planning.CEMSolver(
        planning.ShootingCostEvaluator(theirs, planning.GoalMSE()),
        num_samples=settings.num_samples,
        var_scale=settings.init_std,
        n_steps=settings.num_iterations,
        topk=settings.num_elites,
    )
    # Their solver multiplies the space's last dimension by `action_block`.
    plan_config = types.SimpleNamespace(horizon=search.horizon, action_block=1)
    solver.configure(action_space=Box(-1, 1, (1, model.action_dim), np.float32), n_envs=1, config=plan_config)
    size = model.encoder.image_size
    picture = torch.randn(1, 1, 3, size, size)

    def solve() -> float:
        info = {"pixels": picture, "goal": picture.clone(), "action": torch.zeros(1, 1, model.action_dim)}
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            solver.solve(info)
        return time.perf_counter() - begin

    return solve
