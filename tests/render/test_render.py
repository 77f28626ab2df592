from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from neuralsdf.backends import SoftShadow
from neuralsdf.errors import FieldKindError, FileError, NoSurfaceError, OutputError, UsageError
from neuralsdf.fields.extract import model_surface
from neuralsdf.fields.field import NeuralField
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.render import (
    MeshTracer,
    Shading,
    Tracer,
    check_animation,
    make_tracer,
    parse_colour,
    read_matcap,
    render,
    save_animation,
    save_image,
    total,
    turntable,
)
from neuralsdf.render.camera import Camera
from neuralsdf.render.colours import from_srgb, to_srgb
from neuralsdf.render.pixel_order import in_tiles
from neuralsdf.render.shading import BILINEAR, smooth_normals
from neuralsdf.storage import open_field

from ..helpers import shapes
from ..helpers.fields import Analytic, Function, box, bumpy, octahedron, sphere, torus, union

RING = torus(0.6, 0.2)


def occupancy(function: Function) -> Analytic:
    field = Analytic(function)
    field.kind = "occupancy"
    return field


def picture_rays(size=96, azimuth=30.0, elevation=20.0):
    camera = Camera.orbit(Similarity.identity(), azimuth, elevation)
    index = np.arange(size * size)
    return camera.rays(Similarity.identity(), size, size, index % size + 0.5, index // size + 0.5)


def sphere_hits(eye, directions, centre, radius):
    """t of the first intersection in closed form, inf if there is none."""
    offset = eye - np.array(centre)
    b = directions @ offset
    root = b * b - (offset @ offset - radius**2)
    return np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)


def box_hits(eye, directions, half):
    near, far = ((np.array(s) * np.sign(directions) * np.array(half) - eye) / directions for s in (-1, 1))
    enter, leave = near.max(axis=1), far.min(axis=1)
    return np.where(enter < leave, enter, np.inf)


def dense_hits(function, eye, directions, spacing=1e-3):
    """t of the first sample inside by a dense march, inf if there is none."""
    ts = np.linalg.norm(eye) + np.arange(-1, 1, spacing)
    first = np.full(len(directions), np.inf)
    for t in ts[::-1]:
        first[function(eye + t * directions) < 0] = t
    return first


@pytest.mark.parametrize("scale", [1.0, 1.3, 0.5])
@pytest.mark.parametrize(("centre", "radius"), [((0, 0, 0), 0.7), ((0.3, -0.2, 0.4), 0.25), ((0, 0, 0), 1.0)])
def test_hits_of_a_sphere_are_those_of_the_closed_form(centre, radius, scale):
    eye, directions = picture_rays()
    expected = sphere_hits(eye, directions, centre, radius)
    function = sphere(radius, *centre)
    tracer = Tracer(Analytic(lambda x: scale * function(x)))
    traced = tracer.trace(eye, directions)
    facing = tracer.normals(traced.points, directions)
    # A chord shorter than the minimum step may be missed, at the pixels of the edge.
    middle = directions * -(directions @ (eye - np.array(centre)))[:, None] + eye - np.array(centre)
    sure = np.abs(np.linalg.norm(middle, axis=1) - radius) > 1e-5
    np.testing.assert_array_equal(traced.hit[sure], np.isfinite(expected)[sure])
    both = traced.hit & np.isfinite(expected)
    # Along a grazing ray, a rounding error of 1e-7 in the value moves the root by its square root.
    np.testing.assert_allclose(traced.t[both], expected[both], atol=3e-4)
    steep = both & (np.einsum("ij,ij->i", facing, directions) < -0.1)
    np.testing.assert_allclose(traced.t[steep], expected[steep], atol=2e-5)
    np.testing.assert_allclose(traced.points[both], eye + traced.t[both, None] * directions[both], atol=1e-6)
    normals = (traced.points[both] - np.array(centre)) / radius
    np.testing.assert_allclose(facing[both], normals, atol=1e-3)
    assert not traced.unresolved.any()
    assert np.isinf(traced.t[~traced.hit]).all()


@pytest.mark.parametrize("half", [(0.6, 0.3, 0.4), (0.7, 0.7, 2e-3), (0.01, 0.8, 0.01)])
def test_boxes_and_thin_plates_have_no_holes(half):
    eye, directions = picture_rays(128, 35, 25)
    expected = box_hits(eye, directions, half)
    traced = Tracer(Analytic(box(*half))).trace(eye, directions)
    # Pixels may be missed only on the outline, where the chord is shorter than the minimum step.
    truth = np.isfinite(expected).reshape(128, 128)
    outline = binary_dilation(truth) & ~binary_erosion(truth)
    wrong = traced.hit != truth.ravel()
    assert not (wrong & ~outline.ravel()).any()
    assert wrong.sum() <= 3
    both = traced.hit & np.isfinite(expected)
    np.testing.assert_allclose(traced.t[both], expected[both], atol=1e-4)


def test_a_plate_has_no_holes_though_the_field_overestimates():
    half = (0.7, 0.7, 4e-3)
    function = bumpy(lambda x: 1.3 * box(*half)(x), 1e-3, 40)
    eye, directions = picture_rays(128, 20, 15)
    smaller = np.isfinite(box_hits(eye, directions, (0.69, 0.69, 3e-3)))
    traced = Tracer(Analytic(function)).trace(eye, directions)
    assert traced.hit[smaller].all()
    assert not traced.hit[np.isinf(box_hits(eye, directions, (0.71, 0.71, 6e-3)))].any()
    np.testing.assert_allclose(traced.t[smaller], box_hits(eye, directions[smaller], half), atol=2e-2)


@pytest.mark.parametrize("function", [RING, bumpy(RING, 4e-3, 40), lambda x: 1.3 * RING(x)])
def test_the_first_surface_agrees_with_a_dense_march(function):
    eye, directions = picture_rays(64, 10, 15)
    dense = dense_hits(function, eye, directions)
    traced = Tracer(Analytic(function)).trace(eye, directions)
    assert traced.hit[np.isfinite(dense)].mean() > 0.999
    both = traced.hit & np.isfinite(dense)
    assert (traced.t[both] <= dense[both] + 2e-6).mean() > 0.999  # no surface is stepped through
    # Hits lie on the zero level set, with empty space in front.
    assert np.abs(function(traced.points[traced.hit])).max() < 2e-6
    before = traced.points[traced.hit] - 1e-4 * directions[traced.hit]
    assert function(before).min() > -2e-6


def test_the_surface_of_an_occupancy_field_is_drawn():
    inside = sphere(0.6)
    eye, directions = picture_rays(48)
    expected = sphere_hits(eye, directions, (0, 0, 0), 0.6)
    for function in (lambda x: np.tanh(20 * inside(x)), lambda x: np.where(inside(x) < 0, -0.5, 0.5)):
        traced = make_tracer(occupancy(function)).trace(eye, directions)
        thick = sphere_hits(eye, directions, (0, 0, 0), 0.6 - 1e-3)
        assert traced.hit[np.isfinite(thick)].all()
        assert not traced.hit[np.isinf(expected)].any()
        np.testing.assert_allclose(np.linalg.norm(traced.points[traced.hit], axis=1), 0.6, atol=2e-4)
        steep = np.isfinite(sphere_hits(eye, directions, (0, 0, 0), 0.5))
        np.testing.assert_allclose(traced.t[steep], expected[steep], atol=1e-3)
    with pytest.raises(FieldKindError, match="no distances for sphere tracing"):
        Tracer(occupancy(inside))


def test_a_shape_that_reaches_its_ball_is_closed_by_the_ball():
    """A half-space: from above the cut is visible, and from below the ball."""
    half = make_tracer(occupancy(lambda x: np.arctan(7 * x[:, 2])))
    for side in (1.0, -1.0):
        eye = np.stack([np.linspace(-0.9, 0.9, 21), np.full(21, 0.1), np.full(21, 3 * side)], axis=1)
        traced = half.trace(eye, np.tile([0, 0, -side], (21, 1)))
        assert traced.hit.all()
        expected = 0 if side > 0 else -np.sqrt(1 - eye[:, 0] ** 2 - eye[:, 1] ** 2)
        np.testing.assert_allclose(traced.points[:, 2], expected, atol=1e-2)


def test_rays_that_start_inside_hit_the_next_surface():
    two = union(sphere(0.3, 0, 0, 0.5), sphere(0.3, 0, 0, -0.5))
    traced = Tracer(Analytic(two)).trace(np.array([0, 0, 0.5]), np.array([[0, 0, -1.0], [0, 0, 1.0]]))
    assert traced.hit.tolist() == [True, False]
    assert traced.t[0] == pytest.approx(0.7, abs=1e-5)
    assert not traced.buried.any()


def test_an_eye_far_away_loses_no_precision():
    directions = np.array([[0, 0, -1.0], [0, 0, -1.0]])
    traced = Tracer(Analytic(sphere(0.7))).trace(np.array([[0.1, 0.2, 1e5], [0.71, 0, 1e5]]), directions)
    assert traced.hit.tolist() == [True, False]
    assert traced.points[0, 2] == pytest.approx(np.sqrt(0.49 - 0.05), abs=1e-6)


def test_a_shape_that_touches_its_ball_is_closed():
    rod = box(0.05, 0.05, 1.2)  # its ends stick out of the ball by the network's error and more
    traced = Tracer(Analytic(lambda x: np.maximum(rod(x), np.linalg.norm(x, axis=1) - 1.01))).trace(
        np.array([0, 0, 5.0]), np.array([[0, 0, -1.0]])
    )
    assert traced.hit[0]
    assert traced.points[0, 2] == pytest.approx(1, abs=1e-4)


def test_a_false_wall_at_the_ball_is_counted_and_not_drawn():
    # Negative beyond z = 0.8, which is an error of the field. Only the sphere behind it is visible.
    wrong = union(sphere(0.4), lambda x: 0.8 - x[:, 2])
    x = np.linspace(-0.5, 0.5, 21)
    origins = np.stack([x, np.zeros(21), np.full(21, 3.0)], axis=1)
    traced = Tracer(Analytic(wrong)).trace(origins, np.tile([0, 0, -1.0], (21, 1)))
    assert traced.buried.all()
    np.testing.assert_array_equal(traced.hit, np.abs(x) < 0.4)
    np.testing.assert_allclose(traced.points[traced.hit][:, 2], np.sqrt(0.16 - x[traced.hit] ** 2), atol=1e-5)


def test_nan_values_are_unresolved_and_flagged():
    field = Analytic(sphere(0.7))
    tracer = Tracer(field)
    field.function = lambda x: np.where(x[:, 0] > 0.3, np.nan, sphere(0.7)(x))
    eye, directions = picture_rays(32, 0, 0)
    traced = tracer.trace(eye, directions)
    assert traced.unresolved.any()
    assert not (traced.unresolved & traced.hit).any()
    seen = render(
        field, width=32, height=32, camera=Camera.orbit(field.transform, 0, 0), tracer=tracer, antialias=1
    )
    magenta = (seen.rgba[..., :3] == [255, 0, 255]).all(axis=2)
    assert magenta.ravel()[traced.unresolved].all()
    assert seen.report.unresolved == magenta.sum()


def test_pictures_do_not_depend_on_the_blocks(monkeypatch):
    eye, directions = picture_rays(32)
    tracer = Tracer(Analytic(RING))
    whole = tracer.trace(eye, directions)
    monkeypatch.setattr("neuralsdf.render.sphere_tracing.BLOCK", 100)
    blocks = tracer.trace(eye, directions)
    for name in ("hit", "t", "points", "unresolved", "buried"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))
    assert tracer.trace(eye, directions[:0]).hit.shape == (0,)


def test_a_field_without_a_surface_is_an_error():
    with pytest.raises(NoSurfaceError, match="has no shape"):
        render(Analytic(lambda x: 1e-3 * x[:, 0]), width=8, height=8)
    with pytest.raises(NoSurfaceError, match="no surface"):
        render(Analytic(lambda x: 0.5 + np.linalg.norm(x, axis=1)), width=8, height=8)


def test_a_camera_that_misses_the_shape_is_not_an_error():
    field = Analytic(sphere(0.7))
    away = Camera(np.array([0, 0, 5.0]), np.array([0, 0, 9.0]))
    picture = render(field, width=16, height=16, camera=away, background="transparent")
    assert picture.report.hits == 0
    assert not picture.rgba.any()


def test_silhouette_alpha_is_the_coverage():
    field = Analytic(sphere(0.8))
    camera = Camera(np.array([0, 0, 4.0]), np.zeros(3), fov=40)
    picture = render(field, width=120, height=120, camera=camera, background="transparent", antialias=8)
    pixel = 2 * np.tan(np.radians(20)) / 120
    radius = np.tan(np.arcsin(0.8 / 4)) / pixel  # of the ball's outline, in pixels
    area = picture.rgba[..., 3].sum() / 255
    assert area == pytest.approx(np.pi * radius**2, rel=1e-3)
    partly = (picture.rgba[..., 3] > 0) & (picture.rgba[..., 3] < 255)
    rows, columns = np.nonzero(partly)
    distance = np.hypot(rows + 0.5 - 60, columns + 0.5 - 60)
    assert len(rows) > 100
    assert np.abs(distance - radius).max() < 0.75  # only pixels on the edge are blended


def test_transparent_colours_are_not_darkened_at_the_edge():
    picture = render(
        Analytic(sphere(0.7)), width=64, height=64, background="transparent", shading=Shading("depth")
    )
    edge = (picture.rgba[..., 3] > 0) & (picture.rgba[..., 3] < 255)
    assert edge.any()
    # The ball's rim is at half depth: grey, not grey times coverage.
    assert picture.rgba[edge][:, 0].min() > 100


@pytest.mark.parametrize("seed", [None, 4])
def test_normals_are_those_of_mesh_space(seed):
    transform = Similarity.identity()
    if seed is not None:
        matrix = np.eye(4)
        q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
        matrix[:3, :3], matrix[:3, 3] = 5 * q, (10, 20, 30)
        transform = Similarity(matrix)
    camera = Camera.orbit(transform, 0, 0)
    field = Analytic(sphere(0.7), transform=transform)
    picture = render(field, width=33, height=33, camera=camera, shading=Shading("normals"), antialias=1)
    np.testing.assert_allclose(picture.rgba[16, 16], [128, 128, 255, 255], atol=2)  # facing +Z
    assert picture.rgba[16, 24, 0] > 160 > 96 > picture.rgba[16, 8, 0]  # +X to the right
    assert picture.rgba[8, 16, 1] > 160 > 96 > picture.rgba[24, 16, 1]  # +Y up


def test_depth_runs_from_white_to_black_along_the_axis():
    field = Analytic(box(0.5, 0.5, 0.5))
    picture = render(
        field,
        width=21,
        height=21,
        camera=Camera.orbit(field.transform, 0, 0),
        shading=Shading("depth"),
        antialias=1,
    )
    front = picture.rgba[6:15, 6:15, 0]
    assert front.min() == front.max() == 191  # z = 0.5 everywhere on the face: three quarters


def test_matcaps_are_indexed_by_the_normal_in_view_space(tmp_path):
    size = 65
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, size)  # red grows to the right
    pixels[..., 1] = np.linspace(255, 0, size)[:, None]  # green grows upwards
    Image.fromarray(pixels).save(tmp_path / "matcap.png")
    shading = Shading("matcap", matcap=read_matcap(tmp_path / "matcap.png"))
    field = Analytic(sphere(0.7))
    for azimuth, elevation in ((0, 0), (70, 40)):
        camera = Camera.orbit(field.transform, azimuth, elevation)
        rgba = render(field, width=33, height=33, camera=camera, shading=shading, antialias=1).rgba
        np.testing.assert_allclose(rgba[16, 16, :2].astype(int), 127, atol=3)
        assert rgba[16, 24, 0] > 170 > 85 > rgba[16, 8, 0]
        assert rgba[8, 16, 1] > 170 > 85 > rgba[24, 16, 1]


def test_unreadable_matcaps_are_refused(tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    Image.new("RGB", (5000, 2)).save(tmp_path / "wide.png")
    image = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(image, "PNG")
    (tmp_path / "cut.png").write_bytes(image.getvalue()[:3000])
    for name in ("no.png", "wide.png", "cut.png", "absent.png"):
        with pytest.raises(FileError, match=name):
            read_matcap(tmp_path / name)


def test_occlusion_and_shadows_darken_their_places():
    # A ball on a slab: the slab beside the contact is occluded, and the ball casts a shadow of the key light.
    scene = Analytic(lambda x: np.minimum(sphere(0.3, 0, 0.05, 0)(x), box(0.6, 0.05, 0.6)(x - [0, -0.3, 0])))
    camera = Camera.orbit(scene.transform, 0, 35)

    def brightness(**options):
        shading = Shading(**{"ambient_occlusion": False, "shadow": False, **options})
        return (
            render(scene, width=60, height=60, camera=camera, shading=shading, antialias=1)
            .rgba[..., :3]
            .astype(int)
        )

    plain, occluded, shadowed = brightness(), brightness(ambient_occlusion=True), brightness(shadow=True)
    assert (occluded <= plain).all()
    assert (occluded < plain - 15).any()
    assert (shadowed <= plain).all()
    assert (shadowed < plain - 60).sum() > 30


def test_a_lone_sphere_is_neither_occluded_nor_shadowed():
    field = Analytic(sphere(0.6))
    camera = Camera.orbit(field.transform, 0, 0)
    plain, full = (
        render(
            field, width=40, height=40, camera=camera, shading=Shading(ambient_occlusion=on, shadow=on)
        ).rgba
        for on in (False, True)
    )
    lit = (slice(8, 16), slice(10, 18))  # towards the key light
    np.testing.assert_allclose(full[lit].astype(int), plain[lit], atol=1)


def test_points_outside_the_ball_are_lit_where_their_ray_misses_it():
    """A hit can lie outside by rounding and by the offset from the surface."""
    field = NeuralField(octahedron(0.5), Similarity.identity())
    outside = np.array([[1.01, 0, 0], [2.0, 0, 0], [0, 0, -1.01], [0, 0.9, 0]])
    light = np.array([0, 0, 1.0])
    assert Tracer(field).soft_shadow(outside, light, SoftShadow()).tolist() == pytest.approx([1, 1, 0, 1])


def test_an_occupancy_field_is_shaded_like_the_distance():
    """Shadows and occlusion are those of its surface, whatever its values."""
    ring = torus(0.6, 0.2)
    camera = Camera.orbit(Similarity.identity(), 20, 40)
    exact, drawn = (
        render(field, width=64, height=64, camera=camera, antialias=1).rgba[..., :3].astype(int)
        for field in (Analytic(ring), occupancy(lambda x: 30 * np.arctan(9 * ring(x))))
    )
    differs = np.abs(exact - drawn).max(axis=2)
    assert (differs > 8).mean() < 0.01  # pixels of the outline
    assert differs.mean() < 1


def test_backgrounds_are_drawn():
    field = Analytic(sphere(0.2))

    def corners(background):
        rgba = render(field, width=16, height=16, background=background).rgba
        return rgba[0, 0].tolist(), rgba[-1, 0].tolist()

    assert corners("#204060") == ([0x20, 0x40, 0x60, 255],) * 2
    assert corners("white:black") == ([255, 255, 255, 255], [0, 0, 0, 255])
    assert corners("transparent") == ([0, 0, 0, 0],) * 2
    for wrong in ("no-such-colour", "white:black:red", ""):
        with pytest.raises(UsageError):
            corners(wrong)
    assert parse_colour("hsl(0, 100%, 50%)") == (255, 0, 0)


def test_srgb_conversions_are_inverse_and_standard():
    values = np.linspace(0, 1, 256)
    np.testing.assert_allclose(to_srgb(from_srgb(values)), values, atol=1e-6)
    assert from_srgb(np.array([0.5])) == pytest.approx(0.21404, abs=1e-5)


def test_pictures_are_reproducible_for_any_number_of_threads():
    field = Analytic(RING)
    first = render(field, width=40, height=30)
    again = render(field, width=40, height=30)
    np.testing.assert_array_equal(first.rgba, again.rgba)
    assert first.rgba.shape == (30, 40, 4)
    assert first.report.rays == again.report.rays > 40 * 30
    assert first.report.evaluations == again.report.evaluations


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"height": 20000}, {"width": 16384, "height": 16384}, {"antialias": 0}]
)
def test_invalid_sizes_are_refused(options):
    with pytest.raises(UsageError):
        render(Analytic(sphere(0.7)), **options)


def test_shadings_need_their_arguments():
    for make in (
        lambda: Shading("matcap"),
        lambda: Shading("gouraud"),
        lambda: Shading("depth", matcap=np.ones((2, 2, 3))),
    ):
        with pytest.raises(UsageError):
            make()


def test_pictures_are_written_atomically(tmp_path):
    rgba = render(Analytic(sphere(0.7)), width=20, height=10, background="transparent").rgba
    save_image(tmp_path / "a.png", rgba)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), rgba)
    with pytest.raises(OutputError, match="exists"):
        save_image(tmp_path / "a.png", rgba)
    with pytest.raises(UsageError, match="transparency"):
        save_image(tmp_path / "a.jpg", rgba)
    with pytest.raises(UsageError, match="unsupported format"):
        save_image(tmp_path / "a.tif", rgba)
    rgba[..., 3] = 255
    save_image(tmp_path / "a.png", rgba, force=True)
    assert Image.open(tmp_path / "a.png").mode == "RGB"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
@pytest.mark.parametrize("background", ["studio", "transparent"])
def test_turntables_are_written(tmp_path, suffix, background):
    field, frames = Analytic(box(0.5, 0.2, 0.3)), 4
    path = tmp_path / f"turn{suffix}"
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
        if background == "transparent":
            with pytest.raises(UsageError, match="transparency"):
                check_animation(path, 32, 24, frames, transparent=True)
            return
    check_animation(path, 32, 24, frames, transparent=background == "transparent")
    pictures = list(turntable(field, frames, width=32, height=24, background=background))
    save_animation(path, (picture.rgba for picture in pictures))
    # Half a turn shows a box as it was; a quarter does not.
    difference = [np.abs(p.rgba[..., 3].astype(int) - pictures[0].rgba[..., 3]).sum() for p in pictures]
    if background == "transparent":
        assert difference[2] <= 255 < difference[1]
    assert total([p.report for p in pictures]).rays == sum(p.report.rays for p in pictures)
    if suffix == ".mp4":
        import imageio_ffmpeg

        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == frames
        return
    with Image.open(path) as image:
        assert (image.n_frames, image.size) == (frames, (32, 24))
        for index, picture in enumerate(pictures):
            image.seek(index)
            shown = np.asarray(image.convert("RGBA")).astype(int)
            solid = picture.rgba[..., 3] == 255
            assert np.abs(shown - picture.rgba)[solid].mean() < 8
            if background == "transparent":
                assert (shown[..., 3][picture.rgba[..., 3] == 0] == 0).all()


def test_an_mp4_that_ffmpeg_cannot_finish_is_an_error_and_no_file(tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    encoder = tmp_path / "ffmpeg"
    encoder.write_text("#!/bin/sh\nhead -c 100 > /dev/null; echo no room >&2; exit 1\n")
    encoder.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
    frames = (np.zeros((256, 256, 4), np.uint8) for _ in range(3))
    with pytest.raises(OutputError, match="no room"):
        save_animation(tmp_path / "a.mp4", frames)
    assert list(tmp_path.iterdir()) == [encoder]


def test_unwritable_turntables_are_refused_before_rendering(tmp_path):
    for name, width, frames in (("a.png", 32, 4), ("a.mp4", 33, 4), ("a.gif", 4096, 3600)):
        with pytest.raises(UsageError, match=name):
            check_animation(tmp_path / name, width, width, frames, transparent=False)
    with pytest.raises(UsageError, match="frames"):
        next(turntable(Analytic(sphere(0.7)), 1))


def test_smoothing_hides_facets_and_keeps_the_silhouette():
    # A polyhedron with 26 faces, almost a ball: facets of 45 degrees; those of a network are smaller.
    directions = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)], float) - 1
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    field = Analytic(lambda x: (x @ directions.T).max(axis=1) - 0.6)
    tracer = Tracer(field)
    eye, rays = picture_rays(64)
    traced = tracer.trace(eye, rays)
    met = traced.points[traced.hit], rays[traced.hit]
    bare = smooth_normals(tracer, *met, 0)
    ball = met[0] / np.linalg.norm(met[0], axis=1, keepdims=True)

    def errors(normals):
        return np.degrees(np.arccos(np.clip((normals * ball).sum(axis=1), -1, 1)))

    smooth = smooth_normals(tracer, *met, 0.2)
    np.testing.assert_allclose(np.linalg.norm(smooth, axis=1), 1, atol=1e-5)
    assert errors(smooth).mean() < 0.6 * errors(bare).mean()
    # Far from any crease both are the face's own normal.
    inner = errors(bare) < 4
    assert inner.sum() > 20
    np.testing.assert_allclose(smooth_normals(tracer, *met, 0.02)[inner], bare[inner], atol=1e-3)


def test_interpolated_light_is_close_to_that_of_every_pixel(monkeypatch):
    """Normals, occlusion and shadows computed once for four pixels hardly change a picture."""
    scene = Analytic(lambda x: np.minimum(sphere(0.3, 0, 0.1, 0)(x), box(0.6, 0.1, 0.6)(x - [0, -0.3, 0])))
    size = {"width": 500, "height": 516, "antialias": 1}  # tiles at two sides are cut
    sparse = render(scene, **size)
    monkeypatch.setattr("neuralsdf.render.shading.MAX_WIDTH", 0.0)
    dense = render(scene, **size)
    assert sparse.report.hits == dense.report.hits
    assert dense.report.evaluations - sparse.report.evaluations > 4 * dense.report.hits
    difference = np.abs(sparse.rgba.astype(int) - dense.rgba).max(axis=2)
    assert (difference > 8).sum() < 30
    assert (difference > 2).sum() < 0.01 * dense.report.hits


def test_tiles_partition_the_pixels():
    for width, height in ((16, 24), (20, 13), (3, 5)):
        pixels = in_tiles(width, height)
        np.testing.assert_array_equal(np.sort(pixels), np.arange(width * height))
        for tile in pixels[: width // 8 * (height // 8) * 64].reshape(-1, 16):
            rows, columns = np.divmod(tile, width)
            assert np.ptp(rows) == np.ptp(columns) == 3


def test_bilinear_functions_are_interpolated_exactly():
    rows, columns = np.divmod(in_tiles(8, 8)[:16], 8)
    values = (0.3 + 0.2 * rows - 0.1 * columns + 0.05 * rows * columns)[None, :, None]
    np.testing.assert_allclose(BILINEAR @ values.reshape(1, 4, 4).mean(axis=2)[..., None], values, atol=1e-6)


def test_smoothing_spares_walls_thinner_than_its_radius():
    plate = Analytic(box(0.6, 0.6, 0.005))
    tracer = Tracer(plate)
    traced = tracer.trace(np.array([0.1, 0.1, 4.0]), np.array([[0, 0, -1.0]]))
    normals = smooth_normals(tracer, traced.points, np.array([[0, 0, -1.0]]), 0.1)
    np.testing.assert_allclose(normals, [[0, 0, 1]], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["113418_sf", "472079_sf"])
def test_the_silhouette_is_that_of_the_fields_own_mesh(test_data, name):
    embreex = pytest.importorskip("embreex.mesh_construction")
    scene = pytest.importorskip("embreex.rtcore_scene").EmbreeScene()
    field = open_field(test_data / "author-models" / f"{name}.h5")
    surface = model_surface(field, 256)
    embreex.TriangleMesh(scene, surface.vertices[surface.faces].astype(np.float32))
    size = 256
    eye, directions = picture_rays(size, 140, -35)
    near = eye + directions * (np.linalg.norm(eye) - 1.05)  # embree calculates in float32
    cast = (scene.run(near.astype(np.float32), directions.astype(np.float32)) >= 0).reshape(size, size)
    traced = Tracer(field).trace(eye, directions).hit.reshape(size, size)
    assert cast.sum() > 0.02 * size * size
    for mask, other in ((traced, cast), (cast, traced)):
        assert not (mask & ~binary_dilation(other, np.ones((3, 3)))).any()
        assert not (~mask & binary_erosion(other, np.ones((3, 3)))).any()


def test_ray_casting_a_mesh_agrees_with_tracing_its_distance():
    """Rays cast at the triangles and tracing of the exact distance have the same hits."""
    oracle = SignedDistance(*shapes.torus(0.6, 0.25))
    field = MeshField(oracle, Similarity.identity())
    eye, directions = Camera.orbit(field.transform).rays(
        field.transform, 48, 48, *(axis.ravel() + 0.5 for axis in np.meshgrid(np.arange(48), np.arange(48)))
    )
    cast, traced = (kind(field).trace(eye, directions) for kind in (MeshTracer, Tracer))
    assert (cast.hit != traced.hit).mean() < 0.005  # grazing rays
    both = cast.hit & traced.hit
    assert both.sum() > 300
    np.testing.assert_allclose(cast.t[both], traced.t[both], atol=2e-3)
    ours, theirs = (Tracer(field).normals(met.points[both], directions[both]) for met in (cast, traced))
    assert (ours * theirs).sum(axis=1).min() > 0.9
