"""LeWorldModel's releases to checkpoints of ours, and back.

jepa-mpc convert lewm import --release FOLDER --task push_t --data pusht.h5 --output runs/lewm
jepa-mpc convert lewm export --checkpoint runs/lewm --output FOLDER

A release is a folder of `config.json` and `weights.pt`, as stable-worldmodel 0.1.1 saves them. Its weights are read as
tensors alone. What it does not hold is the actions' mean and std: they come from the data set that it was trained on.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("convert lewm")

import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_mpc.errors import UserError
from jepa_mpc.files import read_json, refuse_existing, whole, write_json
from jepa_mpc.provenance import git_commit
from jepa_mpc.settings import Count, checked, read
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from jepa_mpc.world_model.data.dataset import FRAMESKIP, UNKNOWN, UNUSED, is_unused
from jepa_mpc.world_model.data.hdf5 import DatasetError, column, guarded, open_file
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.weights import FLOATS, CheckpointError, fill, plain_name, require_same

# Pictures are divided by 255 and normalised per channel there (ImageNet's values), and mapped to ±1 here.
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
# Width, depth and heads of the ViTs that a release can name.
_VITS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_VIT, _PARTS = "stable_pretraining.backbone.utils.vit_hf", ("encoder", "predictor")
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


# What holds a weight and a bias, in a release and here: a layer of the ViT, a block of the predictor, and the rest.
_LAYER = {"attention.o_proj": "self_attn.out_proj", "layernorm_before": "norm1", "layernorm_after": "norm2"}
_LAYER |= {"mlp.fc1": "linear1", "mlp.fc2": "linear2"}
_BLOCK = {"attn.norm": "attention_norm", "attn.to_out.0": "out.0", "adaLN_modulation.1": "modulation"}
_BLOCK |= {f"mlp.net.{layer}": f"mlp.{layer}" for layer in (0, 1, 4)}
_REST = {"encoder.layernorm": "encoder.norm", "predictor.transformer.norm": "predictor.norm"}
_REST |= {f"action_encoder.embed.{layer}": f"predictor.action_encoder.{layer + 1}" for layer in (0, 2)}
_REST |= {f"projector.net.{layer}": f"projector.{layer}" for layer in (1, 3)}
_REST |= {f"pred_proj.net.{layer}": f"predictor.output.{layer}" for layer in (0, 1, 3)}
_PATCHES = "encoder.embeddings.patch_embeddings.projection"


def _names(depth: int, num_blocks: int) -> dict[str, str]:
    """Returns tensors that are the same in both: by their name in a release, that here."""
    parts = dict(_REST)
    for i in range(depth):
        parts |= {f"encoder.layers.{i}.{a}": f"encoder.layers.layers.{i}.{b}" for a, b in _LAYER.items()}
    for i in range(num_blocks):
        parts |= {f"predictor.transformer.layers.{i}.{a}": f"predictor.blocks.{i}.{b}" for a, b in _BLOCK.items()}
    names = {f"{a}.{kind}": f"{b}.{kind}" for a, b in parts.items() for kind in ("weight", "bias")}
    for i in range(num_blocks):
        names[f"predictor.transformer.layers.{i}.attn.to_qkv.weight"] = f"predictor.blocks.{i}.qkv.weight"
    for a, b in (("projector.net.1", "projector.1"), ("pred_proj.net.1", "predictor.output.1")):
        names |= {f"{a}.{kind}": f"{b}.{kind}" for kind in ("running_mean", "running_var", "num_batches_tracked")}
    names |= {"encoder.embeddings.cls_token": "encoder.cls", "projector.net.0.weight": "projector.0.weight"}
    names |= {"encoder.embeddings.position_embeddings": "encoder.position"}
    return names | {"action_encoder.patch_embed.bias": "predictor.action_encoder.0.bias"}


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
    found = {new_name(name): value for name, value in weights.items()}
    encoder, predictor = (config[part] if isinstance(config.get(part), Mapping) else {} for part in _PARTS)

    def size(name: str, axis: int = 0) -> int:
        if name not in found or found[name].ndim <= axis:
            raise CheckpointError(f"its weights have no {name} of {axis + 1} dimensions or more")
        return found[name].shape[axis]

    patches, blocks, window = f"{_PATCHES}.weight", "predictor.transformer.layers", "predictor.pos_embedding"
    side = round(abs(size("encoder.embeddings.position_embeddings", 1) - 1) ** 0.5)
    heads = {name: heads for name, (_, _, heads) in _VITS.items()}.get(str(encoder.get("size")))
    vit = {"kind": "vit", "image_size": side * size(patches, 3), "patch_size": size(patches, 3), "width": size(patches)}
    vit |= {"depth": _count(found, r"encoder\.layers\.(\d+)\."), "num_heads": encoder.get("num_heads", heads)}
    lewm = {"kind": "lewm", "width": size(window, 2), "window": size(window, 1), "max_len": MAX_LEN}
    lewm |= {"depth": _count(found, rf"{re.escape(blocks)}\.(\d+)\."), "num_heads": predictor.get("heads")}
    lewm |= {"head_dim": predictor.get("dim_head", 64), "dropout": predictor.get("dropout", 0.0)}
    lewm |= {"mlp_width": size(f"{blocks}.0.mlp.net.1.bias"), "projector_hidden": size("pred_proj.net.0.bias")}
    sizes: dict[str, Any] = {"action_dim": size("action_encoder.patch_embed.weight", 1), "encoder": vit}
    sizes |= {"embed_dim": size("projector.net.3.bias"), "projector_hidden": size("projector.net.0.weight")}
    sizes |= {"projector_activation": "gelu", "predictor": lewm}
    with torch.device("meta"):
        model = JEPA(read(JEPAConfig, sizes, "its sizes"))
        expected = to_release(model)[1]
    require_same(found, expected, "it")
    depth, num_blocks = model.config.encoder.depth, model.config.predictor.depth
    state = {ours: found[theirs] for theirs, ours in _names(depth, num_blocks).items()}
    for kind, i in itertools.product(("weight", "bias"), range(depth)):
        parts = [found[f"encoder.layers.{i}.attention.{part}_proj.{kind}"] for part in "qkv"]
        state[f"encoder.layers.layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(parts)
    # (p / 255 - mean) / std of a pixel p is half of (p / 127.5 - 1) / std, and a constant.
    shift = ((0.5 - _MEAN) / _STD).view(1, 3, 1, 1)
    state["encoder.patches.weight"] = found[patches] / (2 * _STD.view(1, 3, 1, 1))
    state["encoder.patches.bias"] = found[f"{_PATCHES}.bias"] + (found[patches] * shift).sum((1, 2, 3))
    state["predictor.action_encoder.0.weight"] = found["action_encoder.patch_embed.weight"].squeeze(2)
    state["predictor.position"] = found["predictor.pos_embedding"].squeeze(0)
    state["projector.1.running_mean"] = state["projector.1.running_mean"] - found["projector.net.0.bias"]
    normalisers = {"action_mean": torch.zeros(sizes["action_dim"]), "action_std": torch.ones(sizes["action_dim"])}
    fill(model, state | normalisers, "it")
    return model.eval().requires_grad_(False)


def to_release(model: JEPA) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns config and weights as stable-worldmodel takes them, with transformers 5's names.

    Raises `CheckpointError` for models that LeWM is not.
    """
    config, state = model.config, model.state_dict()
    encoder, predictor = config.encoder, config.predictor
    if predictor.kind != "lewm" or encoder.kind != "vit" or config.projector_activation != "gelu" or config.spherical:
        raise CheckpointError("only models as `--preset paper` trains them have a release's parts")
    weights = {theirs: state[ours] for theirs, ours in _names(encoder.depth, predictor.depth).items()}
    for kind, i in itertools.product(("weight", "bias"), range(encoder.depth)):
        whole = state[f"encoder.layers.layers.{i}.self_attn.in_proj_{kind}"]
        for part, value in zip("qkv", whole.chunk(3), strict=True):
            weights[f"encoder.layers.{i}.attention.{part}_proj.{kind}"] = value
    mean, std = (each.view(1, 3, 1, 1).to(whole.device) for each in (_MEAN, _STD))
    weights[f"{_PATCHES}.weight"] = patches = state["encoder.patches.weight"] * (2 * std)
    weights[f"{_PATCHES}.bias"] = state["encoder.patches.bias"] - (patches * ((0.5 - mean) / std)).sum((1, 2, 3))
    weights["action_encoder.patch_embed.weight"] = state["predictor.action_encoder.0.weight"].unsqueeze(2)
    weights["predictor.pos_embedding"] = state["predictor.position"].unsqueeze(0)
    weights["projector.net.0.bias"] = torch.zeros(config.projector_hidden)
    module, D = "stable_worldmodel.wm.lewm.module", config.embed_dim
    size = next((name for name, (*_, heads) in _VITS.items() if heads == encoder.num_heads), "tiny")
    vit = {"size": size, "patch_size": encoder.patch_size, "image_size": encoder.image_size}
    mlp = {"_target_": f"{module}.MLP", "norm_fn": {"_target_": "torch.nn.BatchNorm1d", "_partial_": True}}
    transformer = {"num_frames": predictor.window, "depth": predictor.depth, "heads": predictor.num_heads}
    transformer |= {"dim_head": predictor.inner // predictor.num_heads, "input_dim": D, "hidden_dim": predictor.width}
    transformer |= {"output_dim": D, "mlp_dim": len(state["predictor.blocks.0.mlp.1.bias"])}
    dropout, hidden = {"dropout": predictor.dropout, "emb_dropout": 0.0}, len(state["predictor.output.0.bias"])
    return {
        "_target_": "stable_worldmodel.wm.lewm.LeWM",
        "encoder": {"_target_": _VIT, **vit, "pretrained": False, "use_mask_token": False},
        "predictor": {"_target_": f"{module}.Predictor", **transformer, **dropout},
        "action_encoder": {"_target_": f"{module}.Embedder", "input_dim": config.action_dim, "emb_dim": D},
        "projector": {**mlp, "input_dim": encoder.width, "hidden_dim": config.projector_hidden, "output_dim": D},
        "pred_proj": {**mlp, "input_dim": D, "hidden_dim": hidden, "output_dim": D},
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes bring forth all kinds
        raise CheckpointError(f"{path.name} is damaged, or holds more than tensors, which is not executed") from error
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
    source = {"source": str(config.release), "simulator": UNKNOWN, "action_block": config.frameskip}
    info = CheckpointInfo(config.task, model.config, source, {}, git_commit(), learning_seconds=0.0, metrics={})
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

    config = subcommand_cli_from_dict({"import": Import, "export": Export}, args=args, prog="jepa-mpc convert lewm")
    done = import_release(config) if isinstance(config, Import) else export_release(config)
    print(f"wrote {done}")  # noqa: T201
