"""LeWorldModel's releases to checkpoints of ours, and back.

jepa-mpc convert lewm import --release FOLDER --task push_t --data pusht.h5 --output runs/lewm
jepa-mpc convert lewm export --checkpoint runs/lewm --output FOLDER

A release is a folder of `config.json` and `weights.pt`, as stable-worldmodel 0.1.1 saves them. Its weights are read as
tensors alone. What it does not hold is the actions' mean and std: they come from the data set that it was trained on.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("convert lewm")

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_mpc.errors import UserError, reason
from jepa_mpc.files import read_json, refuse_existing, whole, write_json
from jepa_mpc.provenance import git_commit
from jepa_mpc.settings import Count, checked, read
from jepa_mpc.world_model.checkpoint import (
    FLOATS,
    CheckpointError,
    CheckpointInfo,
    fill,
    load_checkpoint,
    plain_name,
    require_numbers,
    save_checkpoint,
)
from jepa_mpc.world_model.data.dataset import FRAMESKIP, UNUSED, is_unused
from jepa_mpc.world_model.data.hdf5 import DatasetError, column, guarded, open_file
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig

# Pictures are divided by 255 and normalised per channel there (ImageNet's values), and mapped to ±1 here.
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
# Width, depth and heads of the ViTs that a release can name.
_VITS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
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
    frameskip: Count = FRAMESKIP
    """Environment steps in a block."""


@dataclass(frozen=True)
class Export:
    """Make a release of a checkpoint that has LeWorldModel's predictor, as `--preset paper` trains it."""

    checkpoint: Path
    """Folder of the checkpoint, or a bundled one's name."""
    output: Path
    """Folder for `config.json` and `weights.pt`."""


def _names(depth: int, num_blocks: int) -> Iterator[tuple[str, str]]:
    """Yields tensors that are the same in both: their name in a release, and here."""
    yield "encoder.embeddings.cls_token", "encoder.cls"
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
    """Returns a release's name for a weight, as transformers 5 has it, without what wrappers put before it."""
    name = plain_name(name)
    for pattern, replacement in _OLD_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def from_release(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> JEPA:
    """Returns the release's model; action normalisers are still 0 and 1. Raises `UserError` where it is not LeWM."""
    left = {new_name(name): value for name, value in weights.items()}

    def take(name: str, *shape: int | None) -> Tensor:
        if name not in left:
            raise CheckpointError(f"its weights have no {name}")
        found = tuple(left[name].shape)
        if len(found) != len(shape) or any(b not in (None, a) for a, b in zip(found, shape, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointError(f"{name} is {found}, not ({wanted})")
        return left.pop(name)

    def size_of(name: str) -> int:
        return (*left[name].shape, 0)[0] if name in left else 0

    def entry(part: str, name: str, default: Any) -> Any:
        return config[part].get(name, default) if isinstance(config.get(part), Mapping) else default

    patches = take("encoder.embeddings.patch_embeddings.projection.weight", None, 3, None, None)
    width, _, patch_size, _ = patches.shape
    positions = take("encoder.embeddings.position_embeddings", 1, None, width)
    window = take("predictor.pos_embedding", 1, None, None)
    actions = take("action_encoder.patch_embed.weight", None, None, 1)
    depth = _count(left, r"encoder\.layers\.(\d+)\.")
    num_blocks = _count(left, r"predictor\.transformer\.layers\.(\d+)\.")
    heads = {name: heads for name, (_, _, heads) in _VITS.items()}
    sizes: dict[str, Any] = {
        "action_dim": actions.shape[1],
        "embed_dim": size_of("projector.net.3.bias"),
        "projector_hidden": size_of("projector.net.0.weight"),
        "encoder": {
            "kind": "vit",
            "image_size": round(max(0, positions.shape[1] - 1) ** 0.5) * patch_size,
            "patch_size": patch_size,
            "width": width,
            "depth": depth,
            "num_heads": entry("encoder", "num_heads", heads.get(str(entry("encoder", "size", "tiny")))),
        },
        "predictor": {
            "kind": "lewm",
            "width": window.shape[2],
            "depth": num_blocks,
            "num_heads": entry("predictor", "heads", None),
            "head_dim": entry("predictor", "dim_head", 64),
            "mlp_width": size_of("predictor.transformer.layers.0.mlp.net.1.bias"),
            "projector_hidden": size_of("pred_proj.net.0.bias"),
            "dropout": entry("predictor", "dropout", 0.0),
            "max_len": MAX_LEN,
            "window": window.shape[1],
        },
        "projector_activation": "gelu",
    }
    with torch.device("meta"):
        model = JEPA(read(JEPAConfig, sizes, "its sizes"))
    expected = model.state_dict()
    state = {ours: take(theirs, *expected[ours].shape) for theirs, ours in _names(depth, num_blocks)}
    for kind in ("weight", "bias"):
        for i in range(depth):
            square = (width, width) if kind == "weight" else (width,)
            parts = [take(f"encoder.layers.{i}.attention.{part}_proj.{kind}", *square) for part in "qkv"]
            state[f"encoder.layers.layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(parts)
    # (p / 255 - mean) / std of a pixel p is half of (p / 127.5 - 1) / std, and a constant.
    shift = ((0.5 - _MEAN) / _STD).view(1, 3, 1, 1)
    state["encoder.patches.weight"] = patches / (2 * _STD.view(1, 3, 1, 1))
    state["encoder.patches.bias"] = take("encoder.embeddings.patch_embeddings.projection.bias", width) + (
        patches * shift
    ).sum((1, 2, 3))
    state["encoder.position"] = positions
    state["predictor.action_encoder.0.weight"] = actions.squeeze(2)
    state["predictor.position"] = window.squeeze(0)
    bias = take("projector.net.0.bias", sizes["projector_hidden"])
    state["projector.1.running_mean"] = state["projector.1.running_mean"] - bias
    if left:
        raise CheckpointError(f"it has more than LeWM, such as {min(left)}")
    state |= {"action_mean": torch.zeros(actions.shape[1]), "action_std": torch.ones(actions.shape[1])}
    fill(model, state, "the release")
    require_numbers(model, "the release")
    return model.eval().requires_grad_(False)


def to_release(model: JEPA) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns config and weights as stable-worldmodel takes them, with transformers 5's names.

    Raises `CheckpointError` for models that LeWM is not.
    """
    config, state = model.config, model.state_dict()
    encoder, predictor = config.encoder, config.predictor
    if predictor.kind != "lewm" or encoder.kind != "vit" or config.projector_activation != "gelu" or config.spherical:
        raise CheckpointError("only models as `--preset paper` trains them have a release's parts")
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
    weights["encoder.embeddings.position_embeddings"] = state["encoder.position"]
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
            "size": next((name for name, (*_, heads) in _VITS.items() if heads == encoder.num_heads), "tiny"),
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


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def action_stats(path: Path) -> tuple[Tensor, Tensor]:
    """Returns mean and std (A,) of a data set's single actions, as stable-worldmodel's evaluation takes them."""
    with guarded(path), open_file(path) as file:
        action = column(file, "action", "NA", "float")[:].astype(np.float64)
    action = action[~np.isnan(action).any(axis=1)]
    if not len(action) or not np.isfinite(action).all():
        raise DatasetError(f"{path}: column 'action' must be numbers; name the data that the release was trained on")
    std = np.where(is_unused(action), UNUSED, action.std(0))
    return torch.from_numpy(action.mean(0)).float(), torch.from_numpy(std).float()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a PyTorch file; whatever else stands in it is not executed.

    Raises `CheckpointError` unless it holds tensors by name, each no larger than what is stored of it.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than tensors, or is damaged; nothing of it was executed"
        ) from error
    except Exception as error:  # a stranger's bytes bring forth all kinds
        raise CheckpointError(f"{path.name} is no file of weights ({reason(error)})") from error
    nested = loaded.get("state_dict") if isinstance(loaded, Mapping) else None
    weights = nested if isinstance(nested, Mapping) else loaded
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in (*FLOATS, torch.int64)
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
        for name, value in weights.items()
    ):
        raise CheckpointError(f"{path.name} holds no tensors by name")
    return dict(weights)


def import_release(config: Import) -> Path:
    """Writes the checkpoint, in full precision, and returns its folder."""
    config = checked(config)
    files = sorted(path for path in config.release.glob("*.pt") if path.is_file())
    if not (config.release / "config.json").is_file() or len(files) != 1:
        raise CheckpointError(f"{config.release} is no release: it needs config.json and one .pt file of weights")
    refuse_existing(config.output / "config.json")
    mean, std = action_stats(config.data)
    settings = read_json(config.release / "config.json", "name another --release")
    try:
        model = from_release(settings if isinstance(settings, Mapping) else {}, read_weights(files[0]))
    except UserError as error:
        raise CheckpointError(f"{config.release} is no release of LeWM: {error}") from error
    if config.frameskip * len(mean) != model.config.action_dim:
        raise CheckpointError(
            f"{config.release} takes blocks of {model.config.action_dim} numbers, and {config.frameskip} actions of "
            f"{config.data} have {config.frameskip * len(mean)}; name its data, or another --frameskip"
        )
    for buffer, values in ((model.action_mean, mean), (model.action_std, std)):
        buffer.copy_(values.repeat(config.frameskip))
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
    """Writes the two files and returns their folder. Raises `CheckpointError` for a ViT that no release can name."""
    config = checked(config)
    model, _ = load_checkpoint(config.checkpoint)
    settings, weights = to_release(model)
    vit = model.config.encoder
    if (vit.width, vit.depth, vit.num_heads) not in _VITS.values():
        known = "; ".join(f"{name} {width}, {depth}, {heads}" for name, (width, depth, heads) in _VITS.items())
        raise CheckpointError(
            f"no release can name a ViT of width {vit.width}, depth {vit.depth}, {vit.num_heads} heads ({known})"
        )
    for name in ("weights.pt", "config.json"):
        refuse_existing(config.output / name)
    with whole(config.output / "weights.pt") as scratch:
        torch.save(weights, scratch)
    write_json(config.output / "config.json", settings)
    return config.output


def main(args: Sequence[str]) -> None:
    from tyro.extras import subcommand_cli_from_dict

    config = subcommand_cli_from_dict({"import": Import, "export": Export}, args=args)
    done = import_release(config) if isinstance(config, Import) else export_release(config)
    print(f"wrote {done}")  # noqa: T201
