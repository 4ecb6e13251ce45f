"""Looks of a scene: where things then are in the picture, by hand, and that nothing else has changed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from jepa_mpc import envs
from jepa_mpc.envs.looks import FARTHEST, LOOKS, Looks

SIDE, MIDDLE = 128, np.array([0.1, -0.2, 0.3])
OTHERS = {
    "camera": Looks(moved=(0.05, -0.03, 0.04)),
    "light": Looks(turned=(0.6, -0.5, 0.0)),
    "colour": Looks(colour=0.7, seed=3),
}


@pytest.fixture(scope="module", params=["reacher", "walker", "gym/Pusher-v5"])  # the last through a view of its own
def env(request):
    env = envs.make(request.param)
    yield env
    env.close()


@pytest.fixture(scope="module")
def seen_from_above():
    """A function that draws a scene under a camera straight above its middle, whose field of view is 45°."""
    env = envs.make("reacher", image_size=SIDE)
    env.reset(seed=0)

    def draw(looks):
        env.set_looks(looks)
        return env.render().astype(float)

    yield draw
    env.close()


def inner_difference(one, other):
    return np.abs(one - other)[20:-20, 20:-20].mean()


@pytest.mark.parametrize(("camera", "axis", "way"), [((0.05, 0, 0), 1, -1), ((0, 0.05, 0), 0, 1)])
def test_a_camera_that_moves_right_or_up_moves_the_picture_left_or_down(seen_from_above, camera, axis, way):
    before, after = seen_from_above(None), seen_from_above(Looks(camera))
    expected = way * 0.05 / (2 * math.tan(math.radians(22.5))) * SIDE
    ways = np.arange(-10, 10.01, 0.25)
    differences = [inner_difference(ndimage.shift(before, np.eye(3)[axis] * by, order=1), after) for by in ways]
    assert ways[np.argmin(differences)] == pytest.approx(expected, abs=0.25)
    assert min(differences) < 0.1 * inner_difference(before, after)


def test_a_camera_that_moves_ahead_by_a_share_of_its_distance_sees_all_that_much_larger(seen_from_above):
    before, after = seen_from_above(None), seen_from_above(Looks(moved=(0, 0, 0.05)))
    scales, middle = np.arange(0.88, 1.01, 0.01), (SIDE - 1) / 2
    differences = [
        inner_difference(
            ndimage.affine_transform(before, [s, s, 1], [middle * (1 - s), middle * (1 - s), 0], order=1), after
        )
        for s in scales
    ]
    assert scales[np.argmin(differences)] == pytest.approx(1 - 0.05, abs=0.01)


@pytest.mark.parametrize("kind", LOOKS)
def test_looks_change_pictures_and_nothing_else(env, kind):
    assert kind in env.changeable
    rng = np.random.default_rng(0)
    actions = rng.uniform(env.action_space.low, env.action_space.high, (6, *env.action_space.shape))
    seen = []
    for looks in (None, OTHERS[kind], None):
        env.reset(seed=1)
        env.set_looks(looks)
        pictures, states = [env.render()], [env.get_state()]
        named = [name for name in dir(env.model) if name.startswith(("cam_", "light_", "geom_", "mat_"))]
        scene = {name: np.copy(getattr(env.model, name)) for name in named}
        for action in actions:
            env.advance(action)
            pictures.append(env.render())
            states.append(env.get_state())
        seen.append((np.stack(pictures), np.stack(states), scene))
    (own, states, scene), (other, under_other, scene_under_other), (again, _, _) = seen
    np.testing.assert_array_equal(under_other, states)
    for name, value in scene.items():
        np.testing.assert_array_equal(scene_under_other[name], value)
    np.testing.assert_array_equal(again, own)
    assert all(np.abs(a - b).mean() > 1 for a, b in zip(own.astype(float), other, strict=True))


def test_looks_last_until_others_are_set_and_a_picture_is_the_same_whenever_it_is_drawn(env):
    env.reset(seed=2)
    env.set_looks(Looks(moved=(0.05, 0, 0), turned=(0.3, 0.3, 0), colour=0.5))
    first = env.render()
    np.testing.assert_array_equal(env.render(), first)  # nothing adds up
    env.reset(seed=3)
    np.testing.assert_array_equal(env.reset(seed=2)[0], first)
    env.set_looks(Looks())  # of which each is nothing
    nothing = env.render()
    env.set_looks(None)
    np.testing.assert_array_equal(env.render(), nothing)
    assert not np.array_equal(nothing, first)


def test_one_simulators_looks_are_not_anothers(seen_from_above):
    before, other = seen_from_above(None), envs.make("reacher", image_size=SIDE)
    other.set_looks(Looks(colour=1.0))
    there, _ = other.reset(seed=0)
    np.testing.assert_array_equal(seen_from_above(None), before)
    assert not np.array_equal(there, before)
    other.close()


def test_what_cannot_change_says_so_and_stays_as_it_is():
    env = envs.make("two_room")
    assert env.changeable == ()
    picture, _ = env.reset(seed=0)
    env.set_looks(Looks(moved=(0.1, 0, 0), turned=(1, 0, 0), colour=1))
    np.testing.assert_array_equal(env.render(), picture)


def beside(*way):
    """What lies so far from the middle."""
    return MIDDLE + np.array(way, float)


def stand_in(geoms=()):
    """A scene of two eyes, a headlight and a lamp, as MuJoCo has them."""
    eyes = [
        SimpleNamespace(pos=beside(x, 0.0, 4.0), forward=np.array([0, 0, -1.0]), up=np.array([0, 1.0, 0]))
        for x in (-0.1, 0.1)
    ]
    lamps = [
        SimpleNamespace(headlight=headlight, pos=beside(0.0, 0, 2), dir=np.array([0, 0, -1.0]))
        for headlight in (1, 0, 0)  # the last is none of the scene's
    ]
    return SimpleNamespace(camera=eyes, lights=lamps, nlight=2, geoms=list(geoms), ngeom=len(geoms))


def geom(material, index, colour):
    return SimpleNamespace(matid=material, objid=index, rgba=np.array([*colour, 0.4]))


def test_eyes_move_together_by_shares_of_their_distance():
    scene = stand_in()
    Looks(moved=(0.25, -0.5, 0.125)).put_on(scene, MIDDLE)
    for eye, x in zip(scene.camera, (-0.1, 0.1), strict=True):
        np.testing.assert_allclose(eye.pos, beside(x + 1.0, -2.0, 3.5))  # ahead is down
    np.testing.assert_array_equal(scene.lights[1].pos, beside(0, 0, 2))


def test_lamps_turn_about_the_middle_by_hand():
    scene = stand_in()
    Looks(turned=(math.pi / 2, 0, 0)).put_on(scene, MIDDLE)
    np.testing.assert_allclose(scene.lights[1].pos, beside(0, -2, 0), atol=1e-12)
    np.testing.assert_allclose(scene.lights[1].dir, [0, 1, 0], atol=1e-12)
    for untouched in (scene.lights[0], scene.lights[2]):
        np.testing.assert_array_equal(untouched.pos, beside(0, 0, 2))
    np.testing.assert_array_equal(scene.camera[0].pos, beside(-0.1, 0, 4))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 1e-6))
def test_lamps_turn_as_scipy_turns_them(vector):
    scene, rotation = stand_in(), Rotation.from_rotvec(vector)
    Looks(turned=tuple(vector)).put_on(scene, MIDDLE)
    np.testing.assert_allclose(scene.lights[1].pos, MIDDLE + rotation.apply([0, 0, 2]), atol=1e-9)
    np.testing.assert_allclose(scene.lights[1].dir, rotation.apply([0, 0, -1]), atol=1e-9)


def test_colours_are_mixed_and_those_of_one_material_stay_alike():
    """Of one material are the first two; the others have none, and are told apart."""
    own, looks = ([0.2, 0.4, 0.6], [1.0, 0.0, 0.5]), Looks(colour=0.25, seed=7)
    scene = stand_in([geom(5, 0, own[0]), geom(5, 1, own[0]), geom(-1, 0, own[1]), geom(-1, 1, own[1])])
    looks.put_on(scene, MIDDLE)
    found = [each.rgba for each in scene.geoms]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[2] - found[3]).max() > 0.01
    for colour, before in zip(found, (own[0], own[0], own[1], own[1]), strict=True):
        assert colour[3] == 0.4  # as transparent as it was
        mixed_in = (colour[:3] - 0.75 * np.array(before)) / 0.25
        assert ((mixed_in >= -1e-9) & (mixed_in <= 1 + 1e-9)).all()
    np.testing.assert_allclose(
        found[0][:3], 0.75 * np.array(own[0]) + 0.25 * np.random.default_rng([7, 5]).uniform(size=3)
    )


def test_the_seed_decides_other_colours_and_whole_ones_hide_the_scenes_own():
    def seen(seed, own):
        scene = stand_in([geom(index, 0, own) for index in range(300)])
        Looks(colour=1.0, seed=seed).put_on(scene, MIDDLE)
        return np.stack([each.rgba[:3] for each in scene.geoms])

    np.testing.assert_allclose(seen(1, (0.2, 0.4, 0.6)), seen(1, (0.9, 0.1, 0.3)))
    others = seen(2, (0, 0, 0))
    assert np.abs(others - seen(1, (0, 0, 0))).mean() == pytest.approx(1 / 3, abs=0.05)  # of two uniform numbers
    np.testing.assert_allclose(others.mean(0), 0.5, atol=0.07)
    np.testing.assert_allclose(others.std(0), 12**-0.5, atol=0.03)


def sizes(looks):
    return {
        "camera": np.linalg.norm(looks.moved),
        "light": math.degrees(np.linalg.norm(looks.turned)),
        "colour": looks.colour,
    }


@given(st.integers(0, 2**63 - 1), st.floats(0, 0.5), st.floats(0, 180), st.floats(0, 1))
def test_a_draw_is_as_far_as_it_is_asked_to_be_whichever_way(seed, camera, light, colour):
    looks = Looks.draw(np.random.default_rng(seed), camera, light, colour)
    assert looks == Looks.draw(np.random.default_rng(seed), camera, light, colour)
    assert sizes(looks) == pytest.approx({"camera": camera, "light": light, "colour": colour}, abs=1e-12)
    assert looks.turned[2] == 0  # about a level axis


def test_draws_go_all_ways():
    rng = np.random.default_rng(0)
    drawn = [Looks.draw(rng, camera=1.0, light=1.0) for _ in range(2000)]
    camera, light = np.array([looks.moved for looks in drawn]), np.array([looks.turned for looks in drawn])
    np.testing.assert_allclose(camera.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(camera.std(0), 3**-0.5, atol=0.03)
    np.testing.assert_allclose(np.degrees(light.std(0)), [2**-0.5, 2**-0.5, 0], atol=0.03)
    assert len({looks.seed for looks in drawn}) == 2000


@given(st.integers(0, 2**63 - 1), st.lists(st.sampled_from(LOOKS), unique=True, min_size=1))
def test_draws_for_data_differ_in_the_kinds_that_are_asked_for_and_by_no_more_than_the_most(seed, kinds):
    looks = Looks.for_data(np.random.default_rng(seed), kinds)
    assert looks == Looks.for_data(np.random.default_rng(seed), kinds)
    found = sizes(looks or Looks())
    for kind, size in found.items():
        assert size == 0 if kind not in kinds or looks is None else 0 < size <= FARTHEST[kind] * (1 + 1e-9)


def test_draws_for_data_are_as_often_small_as_large():
    rng = np.random.default_rng(0)
    looks = [Looks.for_data(rng, LOOKS) for _ in range(6000)]
    assert 0.22 < looks.count(None) / 6000 < 0.28  # the scene's own, which goals are pictured in
    drawn = [sizes(each) for each in looks if each is not None]
    for kind, most in FARTHEST.items():
        share = np.array([each[kind] for each in drawn]) / most
        np.testing.assert_allclose(np.quantile(share, (0, 0.25, 0.5, 0.75, 1)), (0, 0.25, 0.5, 0.75, 1), atol=0.04)
