"""A simulator, and held-out pairs in it."""

import pytest

from jepa_mpc import envs
from jepa_mpc.eval.pairs import held_out_pairs


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def pairs(env, tmp_path_factory):
    return held_out_pairs(env, envs.get_task("reacher"), 11, 6, tmp_path_factory.mktemp("goals"))
