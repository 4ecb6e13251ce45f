"""stable-worldmodel's planner and reader, from a checkout of theirs, to time beside ours.

Their planning and LeWM modules need einops, PyTorch and Gymnasium alone, and their reader h5py; their packages' own
imports need far more, so those are passed by. Weights are random, which changes no timing.
"""

import contextlib
import importlib
import io
import sys
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.errors import UserError
from jepa_mpc.planners import CEMConfig
from jepa_mpc.world_model.model.encoder import build_encoder
from jepa_mpc.world_model.model.jepa import JEPAConfig


def _modules(checkout: Path, packages: tuple[str, ...], modules: tuple[str, ...]) -> list[Any]:
    """Imports modules of a checkout without running their packages' `__init__`."""
    for package in ("", *packages):
        name = f"stable_worldmodel.{package}".rstrip(".")
        folder = checkout / name.replace(".", "/")
        if not folder.is_dir():
            raise UserError(f"{checkout} is no checkout of stable-worldmodel; clone it from its GitHub page")
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    try:
        return [importlib.import_module(f"stable_worldmodel.{module}") for module in modules]
    except ModuleNotFoundError as error:
        raise UserError(f"stable-worldmodel needs {error.name}; pip install 'jepa-mpc[stable-worldmodel]'") from error


def stable_worldmodel_batches(
    checkout: Path, path: Path, num_batches: int, batch_size: int, num_frames: int, num_workers: int
) -> Callable[[], Iterable[Any]]:
    """Returns what yields a round of their reader's batches."""
    (theirs,) = _modules(checkout, ("data", "data.formats"), ("data.formats.hdf5",))
    data = theirs.HDF5Dataset(path=path, num_steps=num_frames, keys_to_load=["pixels", "action"])
    sampler = torch.utils.data.RandomSampler(data, num_samples=num_batches * batch_size)
    return lambda: torch.utils.data.DataLoader(data, batch_size, sampler=sampler, num_workers=num_workers)


class _HuggingFaceSurface(nn.Module):
    """Our ViT, of the same sizes, behind the interface that LeWM asks of its encoder."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor, interpolate_pos_encoding: bool) -> types.SimpleNamespace:
        return types.SimpleNamespace(last_hidden_state=self.encoder(pixels).unsqueeze(1))


def stable_worldmodel_solve(checkout: Path, model: JEPAConfig, search: AgentConfig) -> Callable[[], float]:
    """Returns a function that plans once with their CEM and returns the seconds that it took."""
    lewm, parts, planning = _modules(checkout, ("wm",), ("wm.lewm.lewm", "wm.lewm.module", "planning"))
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
    from gymnasium.spaces import Box

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
