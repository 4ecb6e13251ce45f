"""Planning to a picture of the user's own. Its state is unknown, so success is not decided."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from jepa_mpc import envs
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report


class UsageError(UserError):
    """Options that cannot be served; the message is one line that names the fix."""


def load_goal_image(path: Path, size: int) -> NDArray[np.uint8]:
    """A user's picture as the model saw its own: (size, size, 3) uint8, the centre square, averaged down."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"no goal image at {path}") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is no picture that can be read ({error}); use a PNG or JPEG") from None
    side = min(image.size)
    if side < size:
        raise UsageError(f"{path} is {image.width}×{image.height}; a goal image needs at least {size}×{size} pixels")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX))


def plan_to_picture(
    goal: NDArray[np.uint8],
    agent: PlanningAgent,
    env: envs.PixelEnv,
    spec: envs.TaskSpec,
    *,
    seed: int,
    budget: int,
    folder: Path,
) -> dict[str, Any]:
    """One episode toward the picture (H, W, 3): how near it came in latent space, and a picture of that."""
    picture, _ = env.reset(seed=seed)
    pictures = [picture]
    agent.reset(goal[None], [seed])
    for _ in range(budget // spec.action_block):
        for action in agent.act(pictures[-1][None])[0]:
            env.advance(action)
        pictures.append(env.render())
    distances = agent.latent_distance(np.stack(pictures), goal).tolist()
    nearest = int(np.argmin(distances))
    report.write_goal_reached(folder / "goal_and_final.png", goal, pictures, nearest, distances)
    return {
        "success_rate": None,
        "latent_distance": {"start": distances[0], "nearest": distances[nearest], "final": distances[-1]},
        "nearest_step": nearest * spec.action_block,
    }
