"""Two rooms: where the point may go, and where it is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc import envs
from jepa_mpc.envs.suites import two_room


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), far=st.booleans())
def test_two_rooms_keep_the_point_inside_and_out_of_the_wall(seed, far):
    env, rng = envs.make("two_room"), np.random.default_rng(seed)
    env.reset(seed=seed)
    drift = rng.uniform(-2, 2, 2) if far else 0
    for _ in range(60):
        before = env.qpos
        env.advance(rng.normal(0, 1, 2) + drift)
        here = env.qpos
        assert not two_room.in_wall(here)
        assert (here >= 21).all()
        assert (here <= 203).all()
        if (before[0] < two_room.WALL) != (here[0] < two_room.WALL):  # only ever through the door
            assert abs(here[1] - two_room.DOOR) <= two_room.HALF_DOOR
            assert abs(before[1] - two_room.DOOR) <= two_room.HALF_DOOR + two_room.SPEED


def test_two_rooms_are_drawn_where_they_are():
    env = envs.make("two_room", image_size=224)
    env.set_pose([60.0, 150.0])
    picture = env.render()
    assert picture[150, 60].tolist() == pytest.approx([255, 0, 0], abs=5)
    assert picture[150, 112].max() == 0  # the wall
    assert picture[49, 112].min() == 255  # the door
    assert picture[200, 180].min() == 255
    small = envs.make("two_room")
    small.set_pose([60.0, 150.0])
    shrunk = picture.reshape(32, 7, 32, 7, 3).mean((1, 3))
    assert np.abs(small.render().reshape(32, 2, 32, 2, 3).mean((1, 3)) - shrunk).mean() < 1
