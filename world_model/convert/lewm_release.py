"""LeWorldModel's releases to checkpoints of ours, and back.

python world_model/convert/lewm_release.py import --release FOLDER --task push_t --data pusht.h5 --output runs/lewm
python world_model/convert/lewm_release.py export --checkpoint runs/lewm --output FOLDER

A release is a folder of `config.json` and `weights.pt`, as stable-worldmodel 0.1.1 saves them. Its weights are read as
tensors alone. What it does not hold is the actions' mean and std: they come from the data set that it was trained on.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import h5py
import numpy as np
import torch
import tyro
from torch import Tensor

from jepa_mpc.world_model.checkpoint import (
    CheckpointError,
    CheckpointInfo,
    git_commit,
    load_checkpoint,
    save_checkpoint,
)
from jepa_mpc.world_model.data.dataset import FRAMESKIP, DatasetError
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig

# Pictures are divided by 255 and normalised per channel there (ImageNet's values), and mapped to ±1 here.
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16}
_SCALES = {heads: name for name, heads in _HEADS.items()}
MAX_LEN = 1_000  # the window slides, so any length will do


@dataclass(frozen=True)
class Import:
    """Make a checkpoint of a release."""

    release: Path
    """Folder with `config.json` and one file of weights."""
    task: str
    """Task in the registry whose pictures and actions it takes."""
    data: Path
    """HDF5 data set of le-wm that it was trained on, for the actions' mean and std."""
    output: Path
    """Folder for the checkpoint."""
    frameskip: int = FRAMESKIP
    """Environment steps in a block."""


@dataclass(frozen=True)
class Export:
    """Make a release of a checkpoint that has LeWorldModel's predictor, as `--preset paper` trains it."""

    checkpoint: Path
    """Folder of the checkpoint."""
    output: Path
    """Folder for `config.json` and `weights.pt`."""


def _names(depth: int, num_blocks: int) -> Iterator[tuple[str, str]]:
    """Tensors that are the same in both: their name in a release, and here."""
    yield "encoder.embeddings.cls_token", "encoder.cls"
    yield "encoder.embeddings.position_embeddings", "encoder.position"
    for kind in ("weight", "bias"):
        for i in range(depth):
            theirs, ours = f"encoder.layers.{i}", f"encoder.layers.layers.{i}"
            yield f"{theirs}.attention.o_proj.{kind}", f"{ours}.self_attn.out_proj.{kind}"
            yield f"{theirs}.layernorm_before.{kind}", f"{ours}.norm1.{kind}"
            yield f"{theirs}.layernorm_after.{kind}", f"{ours}.norm2.{kind}"
            yield f"{theirs}.mlp.fc1.{kind}", f"{ours}.linear1.{kind}"
            yield f"{theirs}.mlp.fc2.{kind}", f"{ours}.linear2.{kind}"
        yield f"encoder.layernorm.{kind}", f"encoder.norm.{kind}"
        for i in range(num_blocks):
            theirs, ours = f"predictor.transformer.layers.{i}", f"predictor.blocks.{i}"
            yield f"{theirs}.attn.norm.{kind}", f"{ours}.attention_norm.{kind}"
            yield f"{theirs}.attn.to_out.0.{kind}", f"{ours}.out.0.{kind}"
            for layer in (0, 1, 4):
                yield f"{theirs}.mlp.net.{layer}.{kind}", f"{ours}.mlp.{layer}.{kind}"
            yield f"{theirs}.adaLN_modulation.1.{kind}", f"{ours}.modulation.{kind}"
        yield f"predictor.transformer.norm.{kind}", f"predictor.norm.{kind}"
        yield f"action_encoder.embed.0.{kind}", f"predictor.action_encoder.1.{kind}"
        yield f"action_encoder.embed.2.{kind}", f"predictor.action_encoder.3.{kind}"
        yield f"projector.net.1.{kind}", f"projector.1.{kind}"
        yield f"projector.net.3.{kind}", f"projector.3.{kind}"
        for layer in (0, 1, 3):
            yield f"pred_proj.net.{layer}.{kind}", f"predictor.output.{layer}.{kind}"
    for i in range(num_blocks):
        yield f"predictor.transformer.layers.{i}.attn.to_qkv.weight", f"predictor.blocks.{i}.qkv.weight"
    for theirs, ours in (("projector.net.1", "projector.1"), ("pred_proj.net.1", "predictor.output.1")):
        for kind in ("running_mean", "running_var", "num_batches_tracked"):
            yield f"{theirs}.{kind}", f"{ours}.{kind}"
    yield "projector.net.0.weight", "projector.0.weight"
    yield "action_encoder.patch_embed.bias", "predictor.action_encoder.0.bias"


# What transformers 4 calls the parts of a ViT, and transformers 5.
_OLD_NAMES = (
    (r"^encoder\.encoder\.layer\.", "encoder.layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda match: f".attention.{match[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(encoder\.layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def new_name(name: str) -> str:
    """A release's name for a weight, as transformers 5 has it."""
    for pattern, replacement in _OLD_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def from_release(config: dict[str, Any], weights: dict[str, Tensor]) -> JEPA:
    """The release's model; action normalisers are still 0 and 1. KeyError or RuntimeError where it is not LeWM."""
    weights = {new_name(name): value for name, value in weights.items()}
    encoder, predictor = config["encoder"], config["predictor"]
    patches, actions = weights["encoder.embeddings.patch_embeddings.projection.weight"], "action_encoder.patch_embed"
    width, _, patch_size, _ = patches.shape
    depth = _count(weights, r"encoder\.layers\.(\d+)\.")
    num_blocks = _count(weights, r"predictor\.transformer\.layers\.(\d+)\.")
    side = round((weights["encoder.embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    model = JEPA(
        JEPAConfig(
            action_dim=weights[f"{actions}.weight"].shape[1],
            embed_dim=len(weights["projector.net.3.bias"]),
            projector_hidden=len(weights["projector.net.0.weight"]),
            encoder=EncoderConfig(
                kind="vit",
                image_size=side * patch_size,
                patch_size=patch_size,
                width=width,
                depth=depth,
                num_heads=encoder.get("num_heads") or _HEADS[encoder["size"]],
            ),
            predictor=PredictorConfig(
                kind="lewm",
                width=weights["predictor.pos_embedding"].shape[2],
                depth=num_blocks,
                num_heads=predictor["heads"],
                head_dim=predictor.get("dim_head", 64),
                mlp_width=len(weights["predictor.transformer.layers.0.mlp.net.1.bias"]),
                projector_hidden=len(weights["pred_proj.net.0.bias"]),
                dropout=predictor.get("dropout", 0.0),
                max_len=MAX_LEN,
                window=weights["predictor.pos_embedding"].shape[1],
            ),
            projector_activation="gelu",
        )
    )
    state = {ours: weights.pop(theirs) for theirs, ours in _names(depth, num_blocks)}
    for kind in ("weight", "bias"):
        for i in range(depth):
            parts = [weights.pop(f"encoder.layers.{i}.attention.{part}_proj.{kind}") for part in "qkv"]
            state[f"encoder.layers.layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(parts)
    patches = weights.pop("encoder.embeddings.patch_embeddings.projection.weight")
    bias = weights.pop("encoder.embeddings.patch_embeddings.projection.bias")
    # (p / 255 - mean) / std of a pixel p is half of (p / 127.5 - 1) / std, and a constant.
    shift = ((0.5 - _MEAN) / _STD).view(1, 3, 1, 1)
    state["encoder.patches.weight"] = patches / (2 * _STD.view(1, 3, 1, 1))
    state["encoder.patches.bias"] = bias + (patches * shift).sum((1, 2, 3))
    state["predictor.action_encoder.0.weight"] = weights.pop(f"{actions}.weight").squeeze(2)
    state["predictor.position"] = weights.pop("predictor.pos_embedding").squeeze(0)
    state["projector.1.running_mean"] = state["projector.1.running_mean"] - weights.pop("projector.net.0.bias")
    if weights:
        raise KeyError(f"it has more than LeWM, such as {min(weights)}")
    model.load_state_dict({**model.state_dict(), **state})
    return model.eval().requires_grad_(False)


def to_release(model: JEPA) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights as stable-worldmodel takes them; ValueError for models that LeWM is not.

    The weights' names are those of transformers 5.
    """
    config, state = model.config, model.state_dict()
    encoder, predictor = config.encoder, config.predictor
    if predictor.kind != "lewm" or encoder.kind != "vit" or config.projector_activation != "gelu" or config.spherical:
        raise ValueError("only models as `--preset paper` trains them have a release's parts")
    weights = {theirs: state[ours] for theirs, ours in _names(encoder.depth, predictor.depth)}
    for kind in ("weight", "bias"):
        for i in range(encoder.depth):
            whole = state[f"encoder.layers.layers.{i}.self_attn.in_proj_{kind}"]
            for part, value in zip("qkv", whole.chunk(3), strict=True):
                weights[f"encoder.layers.{i}.attention.{part}_proj.{kind}"] = value
    patches = state["encoder.patches.weight"] * (2 * _STD.view(1, 3, 1, 1))
    shift = ((0.5 - _MEAN) / _STD).view(1, 3, 1, 1)
    weights["encoder.embeddings.patch_embeddings.projection.weight"] = patches
    bias = state["encoder.patches.bias"] - (patches * shift).sum((1, 2, 3))
    weights["encoder.embeddings.patch_embeddings.projection.bias"] = bias
    weights["action_encoder.patch_embed.weight"] = state["predictor.action_encoder.0.weight"].unsqueeze(2)
    weights["predictor.pos_embedding"] = state["predictor.position"].unsqueeze(0)
    weights["projector.net.0.bias"] = torch.zeros(config.projector_hidden)
    module = "stable_worldmodel.wm.lewm.module"
    batchnorm = {"_target_": "torch.nn.BatchNorm1d", "_partial_": True}
    mlp = {"_target_": f"{module}.MLP", "input_dim": config.embed_dim, "output_dim": config.embed_dim}
    projector = {**mlp, "input_dim": encoder.width, "hidden_dim": config.projector_hidden, "norm_fn": batchnorm}
    return {
        "_target_": "stable_worldmodel.wm.lewm.LeWM",
        "encoder": {
            "_target_": "stable_pretraining.backbone.utils.vit_hf",
            "size": _SCALES.get(encoder.num_heads, "tiny"),
            "patch_size": encoder.patch_size,
            "image_size": encoder.image_size,
            "pretrained": False,
            "use_mask_token": False,
        },
        "predictor": {
            "_target_": f"{module}.Predictor",
            "num_frames": predictor.window,
            "input_dim": config.embed_dim,
            "hidden_dim": predictor.width,
            "output_dim": config.embed_dim,
            "depth": predictor.depth,
            "heads": predictor.num_heads,
            "mlp_dim": len(state["predictor.blocks.0.mlp.1.bias"]),
            "dim_head": predictor.head_dim or predictor.width // predictor.num_heads,
            "dropout": predictor.dropout,
            "emb_dropout": 0.0,
        },
        "action_encoder": {
            "_target_": f"{module}.Embedder",
            "input_dim": config.action_dim,
            "emb_dim": config.embed_dim,
        },
        "projector": projector,
        "pred_proj": {**mlp, "hidden_dim": len(state["predictor.output.0.bias"]), "norm_fn": batchnorm},
    }, {name: value.clone() for name, value in weights.items()}


def _count(weights: dict[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def action_stats(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and std (A,) of a data set's single actions, as stable-worldmodel's evaluation takes them."""
    try:
        with h5py.File(path, "r") as file:
            action = file["action"][:].astype(np.float64)
    except (OSError, KeyError) as error:
        raise DatasetError(f"{path} is no data set with a column of actions ({error})") from error
    action = action[~np.isnan(action).any(axis=1)]
    return torch.from_numpy(action.mean(0)).float(), torch.from_numpy(action.std(0)).float()


def import_release(config: Import) -> Path:
    """Writes the checkpoint, in full precision, and returns its folder."""
    files = sorted(config.release.glob("*.pt"))
    if not (config.release / "config.json").is_file() or len(files) != 1:
        raise CheckpointError(f"{config.release} is no release: it needs config.json and one .pt file of weights")
    if (config.output / "config.json").exists():
        raise CheckpointError(f"{config.output} holds a checkpoint already; choose another --output")
    mean, std = action_stats(config.data)
    try:
        weights = torch.load(files[0], map_location="cpu", weights_only=True)
        model = from_release(json.loads((config.release / "config.json").read_text()), weights)
        for buffer, values in ((model.action_mean, mean), (model.action_std, std)):
            buffer.copy_(values.repeat(config.frameskip))
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{config.release} is no release of LeWM that fits {config.data}: {reason}") from error
    info = CheckpointInfo(
        task=config.task,
        model=model.config,
        data={"source": str(config.release), "simulator": "unknown", "action_block": config.frameskip},
        training={},
        commit=git_commit(),
        learning_seconds=0.0,
        metrics={},
    )
    save_checkpoint(config.output, model, info, f"# {config.task}\n\nMade of {config.release}.\n", half=False)
    return config.output


def export_release(config: Export) -> Path:
    """Writes the two files and returns their folder."""
    model, _ = load_checkpoint(config.checkpoint)
    settings, weights = to_release(model)
    config.output.mkdir(parents=True, exist_ok=True)
    torch.save(weights, config.output / "weights.pt")
    (config.output / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return config.output


def main() -> None:
    config = tyro.extras.subcommand_cli_from_dict({"import": Import, "export": Export})
    try:
        done = import_release(config) if isinstance(config, Import) else export_release(config)
    except (CheckpointError, DatasetError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"wrote {done}")  # noqa: T201


if __name__ == "__main__":
    main()
