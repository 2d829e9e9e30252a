"""Made scenes: the labels agree with one another, and with the geometry they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.data import Scenes
from peft_dense.data.labels import Item
from peft_dense.data.made.looks import LOOKS, Look
from peft_dense.data.made.people import stick_person
from peft_dense.data.made.scenes import CLASSES, PARTS
from peft_dense.data.made.shading import texture
from peft_dense.data.made.solids import (
    Array,
    Solid,
    box,
    capsule,
    cone,
    cylinder,
    plane,
    rotation,
    sphere,
)
from peft_dense.errors import DataError, UnknownNameError
from peft_dense.tasks import task

SIZE = (32, 48)
PERSON = CLASSES.index("person")
seeds = st.integers(0, 2**16)
some = settings(max_examples=8)


def scene(seed: int) -> Item:
    return Scenes(1, size=SIZE, seed=seed)[0]


@given(seeds)
@some
def test_a_scene_depends_on_index_and_seed_alone(seed: int) -> None:
    first, again = Scenes(3, SIZE, seed=seed), Scenes(9, SIZE, ["semseg"], seed=seed)
    a, b = first[2], again[2]
    assert torch.equal(a["image"], b["image"]) and torch.equal(a["semseg"], b["semseg"])
    assert not torch.equal(a["image"], first[1]["image"])
    assert not torch.equal(a["image"], Scenes(3, SIZE, seed=seed + 1)[2]["image"])


@given(seeds)
@some
def test_labels_have_the_form_that_the_tasks_read(seed: int) -> None:
    data = Scenes(1, SIZE, seed=seed)
    item = data[0]
    assert item["image"].shape == (3, *SIZE) and item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() <= item["image"].max() <= 1
    for name, channels in data.channels.items():
        kind = task(name, channels=channels)
        loss = kind.loss(torch.zeros(1, channels, *SIZE), item[name][None])
        assert loss.isfinite() and loss >= 0
        assert kind.draw_target(item[name]).shape == (*SIZE, 3)


@given(seeds)
@some
def test_normals_are_unit_and_face_the_camera(seed: int) -> None:
    item = scene(seed)
    normals = item["normals"]
    assert_close(normals.norm(dim=0), torch.ones(SIZE))
    # n . ray < 0 at the true focal length, which lies between those of the two fields of view; so
    # nearly everywhere at these two.
    x = torch.arange(SIZE[1]) + 0.5 - SIZE[1] / 2
    y = SIZE[0] / 2 - torch.arange(SIZE[0]) - 0.5
    toward = [
        (normals[0] * x + normals[1] * y[:, None] - normals[2] * focal < 0).float().mean()
        for focal in (SIZE[0] / 2 / math.tan(math.radians(angle)) for angle in (24, 29))
    ]
    assert min(toward) > 0.98
    ground = normals[:, item["semseg"] == CLASSES.index("ground")]
    assert_close(ground, ground[:, :1].expand_as(ground), atol=1e-5, rtol=0)  # flat, and upward
    assert (ground[1] > 0.9).all()


@given(seeds)
@some
def test_depth_is_positive_and_farthest_on_the_wall(seed: int) -> None:
    item = scene(seed)
    assert item["depth"].min() > 0 and item["depth"].isfinite().all()
    things = item["semseg"] > 1
    if things.any():
        assert item["depth"][0][things].max() < 9


@given(seeds)
@some
def test_parts_are_on_people_only(seed: int) -> None:
    item = scene(seed)
    person = item["semseg"] == PERSON
    if person.any():
        assert torch.equal(item["human_parts"] > 0, person)
        assert item["human_parts"].max() < len(PARTS)
    else:
        assert (item["human_parts"] == 255).all()


@given(seeds)
@some
def test_edges_mark_every_border_of_classes_and_nothing_else_far_from_things(seed: int) -> None:
    item = scene(seed)
    edge, semseg = item["edge"] == 1, item["semseg"]
    right, down = semseg[:, 1:] != semseg[:, :-1], semseg[1:] != semseg[:-1]
    assert edge[:, 1:][right].all() and edge[:, :-1][right].all()
    assert edge[1:][down].all() and edge[:-1][down].all()
    # Two things of a class may touch, so there may be more edges, but only beside another edge.
    neighbours = torch.nn.functional.conv2d(
        edge[None, None].float(), torch.tensor([[[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]]]), padding=1
    )[0, 0]
    assert (neighbours[edge] > 0).all()


@given(seeds)
@some
def test_salient_are_people_and_the_nearest_thing(seed: int) -> None:
    item = scene(seed)
    salient, person = item["sal"] == 1, item["semseg"] == PERSON
    thing = (item["semseg"] > 1) & ~person
    assert salient[person].all() and not salient[item["semseg"] <= 1].any()
    if thing.any():
        depth = item["depth"][0].masked_fill(~thing, math.inf)
        assert salient.flatten()[depth.argmin()]
        assert len(item["semseg"][salient & thing].unique()) == 1


def test_everything_occurs() -> None:
    data = Scenes(20, SIZE, ["semseg", "human_parts"])
    items = list(data)
    seen = set(torch.cat([item["semseg"].flatten() for item in items]).tolist())
    parts = set(torch.cat([item["human_parts"].flatten() for item in items]).tolist())
    assert seen == set(range(len(CLASSES))) and parts == {*range(len(PARTS)), 255}
    kinds = [len({*item["semseg"].unique().tolist()} & {2, 3, 4, 5}) for item in items]
    assert sum(kinds) / len(kinds) > 1.5  # three to five things, some of a kind, some hidden


@pytest.mark.parametrize("size", [(1, 1), (8, 120), (120, 8)])
def test_every_ray_of_any_picture_meets_something(size: tuple[int, int]) -> None:
    item = Scenes(1, size)[0]
    assert item["depth"].isfinite().all() and item["image"].isfinite().all()


def test_it_is_a_data_set() -> None:
    data = Scenes(3, SIZE, ["semseg", "depth"], transform=lambda item: {**item, "seen": True})
    assert len(data) == 3 and len(list(data)) == 3  # iteration ends
    assert data[-1]["meta"]["id"] == data[2]["meta"]["id"] and data[0]["seen"]
    assert data.channels == {"semseg": 7, "depth": 1}
    assert data.classes == {"semseg": list(CLASSES)}
    assert set(data[0]) == {"image", "semseg", "depth", "meta", "seen"}


@given(seeds)
@some
def test_views_show_the_item_and_then_the_same_scene_in_other_paint(seed: int) -> None:
    data = Scenes(2, SIZE, seed=seed)
    views, things = data.views(1, 3)
    assert torch.equal(views[0], data[1]["image"])
    assert all(view.shape == (3, *SIZE) for view in views)
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    again, _ = data.views(1, 2)
    assert torch.equal(again[1], views[1])  # whatever the count
    assert set(things) == set(CLASSES[2:]) and sum(things.values()) >= 1
    seen = set(data[1]["semseg"].unique().tolist()) - {0, 1}
    assert all(things[CLASSES[kind]] > 0 for kind in seen)


def test_views_of_one_scene_have_their_borders_in_common() -> None:
    """Paint moves nothing: without light and with plain paint, a colour is a coat's everywhere."""
    flat = Look(patterns={"plain": 1.0}, ambient=(1, 1), noise=(0, 0), people=(1.0,))
    data = Scenes(4, SIZE, ["edge"], seed=3, look=flat)
    for index in range(4):
        inside = data[index]["edge"] == 0
        for view in data.views(index)[0]:
            change = (view[:, :, 1:] != view[:, :, :-1]).any(0)
            assert not (change & inside[:, 1:]).any()  # colours change on borders alone


def test_the_look_for_pretraining_is_another_than_the_demos() -> None:
    demo, other = LOOKS["demo"], LOOKS["pretraining"]
    assert LOOKS["mixed"] == Look() and set(other.kinds) - {"person"} < set(demo.kinds)
    assert set(demo.patterns) & set(other.patterns) == {"plain"}
    data = Scenes(12, SIZE, ["semseg", "depth"], look="pretraining")
    items = list(data)
    seen = set(torch.cat([item["semseg"].flatten() for item in items]).tolist())
    assert seen == set(range(len(CLASSES))) - {CLASSES.index("cone")}
    assert all(item["depth"].isfinite().all() for item in items)
    for look in LOOKS.values():
        assert sum(look.patterns.values()) == pytest.approx(1) == sum(look.people)


@pytest.mark.parametrize(
    "pattern", ["plain", "stripes", "checker", "noise", "dots", "zigzag", "grid"]
)
def test_textures_mix_two_colours(pattern: str) -> None:
    rng = np.random.default_rng(0)
    colours = texture(rng, Look(patterns={pattern: 1.0}), large=False)(rng.normal(size=(500, 3)))
    assert colours.min() >= 0 and colours.max() <= 1
    spread = colours - colours[0]
    assert (np.linalg.matrix_rank(spread, tol=1e-9) == 0) == (pattern == "plain")
    assert np.linalg.matrix_rank(spread, tol=1e-9) <= 1  # on the line between two colours


def test_bad_arguments() -> None:
    with pytest.raises(UnknownNameError, match=r"look of made scenes 'demos'; did you mean 'demo'"):
        Scenes(1, look="demos")
    with pytest.raises(IndexError, match="scene 3 of 2"):
        Scenes(2).views(3)
    with pytest.raises(UnknownNameError, match=r"task of made scenes 'edges'; did you mean 'edge'"):
        Scenes(1, tasks=["edges"])
    with pytest.raises(DataError, match=r"length=0, size=\(96, 128\): expected at least one"):
        Scenes(0)
    with pytest.raises(DataError, match=r"a positive \(height, width\)"):
        Scenes(1, size=(0, 4))
    with pytest.raises(IndexError, match="scene 1 of 1"):
        Scenes(1)[1]


# ---------------------------------------------------------------------------------- the geometry
def inside(kind: str, p: Array) -> Array:
    """Whether points (N, 3) of a solid's own frame lie in it: what a reader can check by eye."""
    x, y, z = p.T
    r = np.hypot(x, z)
    return {
        "sphere": (p**2).sum(1) < 0.5**2,
        "box": (abs(x) < 0.3) & (abs(y) < 0.6) & (abs(z) < 0.4),
        "cylinder": (r < 0.4) & (abs(y) < 0.5),
        "cone": (abs(y) < 0.5) & (r < 0.4 * (0.5 - y)),
        "capsule": np.hypot(r, np.maximum(abs(y) - 0.5, 0)) < 0.2,
    }[kind]


def make(kind: str, centre: Array, axis: Array) -> Solid:
    frame = rotation(axis)
    return {
        "sphere": lambda: sphere(centre, 0.5, frame),
        "box": lambda: box(centre, (0.3, 0.6, 0.4), frame),
        "cylinder": lambda: cylinder(centre, 0.4, 0.5, frame),
        "cone": lambda: cone(centre, 0.4, 0.5, frame),
        "capsule": lambda: capsule(centre - 0.5 * frame[:, 1], centre + 0.5 * frame[:, 1], 0.2),
    }[kind]()


@pytest.mark.parametrize("kind", ["sphere", "box", "cylinder", "cone", "capsule"])
@given(seed=seeds)
@some
def test_rays_meet_a_solid_where_marching_does(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = np.array([*rng.uniform(-0.5, 0.5, 2), rng.uniform(-4, -2)])
    solid = make(kind, centre, rng.normal(size=3))
    rays = np.concatenate([rng.uniform(-0.6, 0.6, (200, 2)), -np.ones((200, 1))], 1)
    depth, surface = solid.hit(rays)
    steps = np.linspace(0.5, 6, 1101)
    points = (steps[:, None, None] * rays - solid.origin) @ solid.frame
    marched = inside(kind, points.reshape(-1, 3)).reshape(points.shape[:2])
    struck = marched.any(0)
    assume(struck.any())  # a capsule seen end-on is small
    # Marching misses what is thinner than its step; what it strikes, the ray must meet there.
    assert np.isfinite(depth[struck]).all()
    assert np.abs(depth[struck] - steps[marched.argmax(0)][struck]).max() < 0.006
    assert (np.isfinite(depth) & ~struck).mean() < 0.03

    met = np.isfinite(depth)
    normals, places = solid.touch(rays[met], depth[met], surface[met])
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    assert np.allclose(solid.origin + places @ solid.frame.T, depth[met, None] * rays[met])
    local = normals @ solid.frame
    outward = ~inside(kind, places + 1e-4 * local) & inside(kind, places - 1e-4 * local)
    assert outward.mean() > 0.97  # all but points within 1e-4 of a rim

    rows, columns = solid.window(focal=50, height=60, width=60)
    v, u = 30 - 50 * rays[met, 1], 30 + 50 * rays[met, 0]
    assert (rows.start <= v).all() and (v <= rows.stop).all()
    assert (columns.start <= u).all() and (u <= columns.stop).all()


@pytest.mark.parametrize(("kind", "half"), [("box", 0.6), ("cylinder", 0.5)])
def test_a_ray_parallel_to_the_sides_meets_the_end(kind: str, half: float) -> None:
    solid = make(kind, np.array([0.0, 0, -3]), np.array([0.0, 0, 1]))
    with np.errstate(divide="raise", invalid="raise"):
        depth, _ = solid.hit(np.array([[0.0, 0, -1]]))
    assert depth[0] == pytest.approx(3 - half)


def test_a_plane_is_met_everywhere_below_the_horizon() -> None:
    ground = plane(np.array([0, -1.5, 0]), np.array([0.0, 1, 0]))
    rays = np.array([[0, -0.5, -1], [0.3, -1, -1], [0, 0.5, -1]])
    assert ground.hit(rays)[0].tolist() == [3, 1.5, math.inf]
    assert ground.window(50, 60, 80) == (slice(0, 60), slice(0, 80))


@given(st.integers(0, 2**16))
def test_rotations_are_rotations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    frame = rotation(axis, rng.uniform(0, 7))
    assert np.allclose(frame.T @ frame, np.eye(3)) and np.isclose(np.linalg.det(frame), 1)
    assert np.allclose(frame[:, 1], axis / np.linalg.norm(axis))


def ends(solid: Solid, start: Array) -> tuple[Array, Array, float]:
    """Both ends of a capsule, the one nearer to a point first, and its radius."""
    radius = float(np.sqrt(solid.surfaces[0].c0))
    along = (solid.reach - radius) * solid.frame[:, 1]
    first, second = solid.origin - along, solid.origin + along
    if np.linalg.norm(second - start) < np.linalg.norm(first - start):
        first, second = second, first
    return first, second, radius


def test_a_person_hangs_together_and_stands_on_the_ground() -> None:
    forwards, stretched = [], []
    for seed in range(60):
        place = np.array([seed / 9, 0, -2.0])
        body = stick_person(np.random.default_rng(seed), place)
        limbs: dict[str, list[Solid]] = {}
        for part, solid, _ in body:
            limbs.setdefault(PARTS[part], []).append(solid)
        (head,), (torso,) = limbs["head"], limbs["torso"]
        hips, neck, _ = ends(torso, place)
        low, high, size = ends(head, neck)
        assert hips[1] < neck[1] < low[1] < high[1]
        assert np.linalg.norm(high - low) < size  # it is round, and doesn't reach into the torso
        lows = [min(a[1], b[1]) - r for a, b, r in (ends(solid, place) for _, solid, _ in body)]
        assert abs(min(lows)) < 1e-9
        joints = []
        for upper, lower, trunk in (("arm", "arm", neck), ("leg", "leg", hips)):
            for one, other in zip(limbs[f"upper {upper}"], limbs[f"lower {lower}"], strict=True):
                root, joint, _ = ends(one, trunk)
                near, far, _ = ends(other, joint)
                assert np.allclose(near, joint)
                joints.append((root, joint, far))
        (_, elbow, hand), _, (left, knee, _), (right, _, _) = joints
        stretched.append((elbow - joints[0][0]) @ (hand - elbow) > 0)
        ahead = np.cross(left - right, [0, 1, 0])  # x goes from the one hip to the other
        forwards.append((knee - left) @ ahead < 0)
    assert np.mean(stretched) > 0.6  # arms are folded seldom
    assert 0.2 < np.mean(forwards) < 0.8  # legs swing both ways
