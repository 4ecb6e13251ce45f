"""What stable-worldmodel's LeWM foresees with weights that anyone can make again: `lewm.json`, and its making.

PYTHONPATH=.:tests/world_model python tests/world_model/golden/lewm.py --checkout FOLDER

compares both sizes, writes the small one's futures, and reads a data set of ours by their reader. It needs einops,
transformers and hdf5plugin, and a checkout of github.com/galilai-group/stable-worldmodel.
"""

import importlib
import json
import sys
import tempfile
import types
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

GOLDEN = Path(__file__).with_suffix(".json")
S, KEPT = 4, 8  # candidates; dimensions of an embedding in the file
SIZES: dict[str, dict[str, Any]] = {
    "small": {"image": 28, "depth": 2, "width": 48, "blocks": 2, "heads": 4, "mlp": 96, "hidden": 64, "action": 6},
    "released": {
        "image": 224,
        "depth": 12,
        "width": 192,
        "blocks": 6,
        "heads": 16,
        "mlp": 2048,
        "hidden": 2048,
        "action": 10,
    },
}


@dataclass(frozen=True)
class GoldenConfig:
    """Compare our model with theirs under the same weights, and keep what theirs foresees."""

    checkout: Path
    """Of stable-worldmodel."""


def random_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A value for the weight of that name (transformers 5's), so that no layer is idle and none explodes."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return torch.from_numpy(np.abs(x) + 0.5)
    if len(shape) == 1:
        return torch.from_numpy(0.1 * x + (name.endswith("weight")))
    return torch.from_numpy(x * 0.5 / np.sqrt(np.prod(shape[1:])).astype(np.float32))


def inputs(image: int, action: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """Pictures (2, 3, H, W, 3), the two blocks between them (2, 2, A), and candidates (2, S, 5, A)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, image, image, 3), np.uint8)
    past, candidates = (rng.standard_normal(shape, np.float32) for shape in ((2, 2, action), (2, S, 5, action)))
    return pixels, torch.from_numpy(past), torch.from_numpy(candidates)


def release_config(size: dict[str, Any]) -> dict[str, Any]:
    width = size["width"]
    predictor = {"num_frames": 3, "depth": size["blocks"], "heads": size["heads"], "mlp_dim": size["mlp"]}
    predictor |= {"input_dim": width, "hidden_dim": width, "output_dim": width, "dim_head": 64, "dropout": 0.1}
    return {"encoder": {"size": "tiny", "num_heads": 3}, "predictor": predictor}


def their_packages(checkout: Path) -> None:
    """Makes their modules importable without their packages' own imports, which need far more."""
    for name in ("", ".wm", ".data", ".data.formats"):
        name = f"stable_worldmodel{name}"
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(checkout / name.replace(".", "/"))]


def compare_readers() -> None:
    """Asserts that their reader and ours draw the same windows of our files, by rows and by blocks of rows."""
    from conftest import INFO, synthetic_episodes

    from jepa_mpc.world_model.data.dataset import Dataset, write_dataset

    theirs = importlib.import_module("stable_worldmodel.data.formats.hdf5")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.h5"
        write_dataset(path, synthetic_episodes(5, 40), INFO)
        for frameskip in (1, 5):
            read = theirs.HDF5Dataset(path=path, num_steps=4, frameskip=frameskip, keys_to_load=["pixels", "action"])
            data = Dataset(path, frameskip=frameskip)
            for window, (episode, start) in zip(read, read.clip_indices, strict=True):
                rows = data.ep_offset[episode] + start + frameskip * np.arange(4)
                np.testing.assert_array_equal(window["pixels"].permute(0, 2, 3, 1), data.pixels[rows])
                np.testing.assert_array_equal(window["action"][:-1], data.action[rows[:-1]])
            print(f"frameskip {frameskip}: {len(read)} windows are the same")  # noqa: T201


def their_model(size: dict[str, Any]) -> torch.nn.Module:
    from transformers import ViTConfig, ViTModel

    lewm, parts = (importlib.import_module(f"stable_worldmodel.wm.lewm.{name}") for name in ("lewm", "module"))
    width = size["width"]
    encoder = ViTConfig(
        hidden_size=width,
        num_hidden_layers=size["depth"],
        num_attention_heads=3,
        intermediate_size=4 * width,
        image_size=size["image"],
        patch_size=14,
    )

    def mlp():
        return parts.MLP(width, size["hidden"], width, norm_fn=torch.nn.BatchNorm1d)

    model = lewm.LeWM(
        ViTModel(encoder, add_pooling_layer=False, use_mask_token=False),
        parts.Predictor(**release_config(size)["predictor"]),
        parts.Embedder(input_dim=size["action"], emb_dim=width),
        mlp(),
        mlp(),
    )
    return model.eval().requires_grad_(False)


def their_futures(model: torch.nn.Module, size: dict[str, Any]) -> Tensor:
    """Embeddings (2, S, 3 + 5, D): of the pictures, and foreseen."""
    pixels, past, candidates = inputs(size["image"], size["action"])
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (torch.from_numpy(pixels).permute(0, 1, 4, 2, 3).float() / 255 - mean) / std
    info = {
        "pixels": images[:, None].expand(-1, S, -1, -1, -1, -1),
        "action_history": past[:, None].expand(-1, S, -1, -1),
    }
    return model.rollout(info, candidates)["predicted_emb"]


def our_futures(model: Any, size: dict[str, Any]) -> Tensor:
    pixels, past, candidates = inputs(size["image"], size["action"])
    z = model.encode(torch.from_numpy(pixels))
    return torch.cat([z[:, None].expand(-1, S, -1, -1), model.rollout(z, past, candidates)], dim=2)


def main() -> None:
    import transformers

    from jepa_mpc.world_model.convert.lewm_release import from_release, new_name, to_release

    their_packages(tyro.cli(GoldenConfig).checkout)
    compare_readers()
    for name, size in SIZES.items():
        theirs = their_model(size)
        shapes = {new_name(key): tuple(value.shape) for key, value in theirs.state_dict().items()}
        for key, value in theirs.state_dict().items():
            value.copy_(random_weight(new_name(key), value.shape))
        ours = from_release(release_config(size), theirs.state_dict())
        expected, found = their_futures(theirs, size), our_futures(ours, size)
        error = float((found - expected).abs().max())
        parameters = sum(p.numel() for p in theirs.parameters()) / 1e6
        print(f"{name}: {parameters:.2f} M parameters, largest difference {error:.1e}")  # noqa: T201
        assert error < 1e-4
        if transformers.__version__ >= "5":
            theirs.load_state_dict(to_release(ours)[1])
            back = float((their_futures(theirs, size) - expected).abs().max())
            print(f"  and back again {back:.1e}")  # noqa: T201
            assert back < 1e-4
        if name == "small":
            provenance = f"stable-worldmodel 0.1.1, transformers {transformers.__version__}, torch {torch.__version__}"
            futures = [round(x, 6) for x in expected[..., :KEPT].flatten().tolist()]
            GOLDEN.write_text(json.dumps({"provenance": provenance, "shapes": shapes, "futures": futures}) + "\n")


if __name__ == "__main__":
    main()
