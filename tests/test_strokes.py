import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from asr_dni.cli.main import main
from asr_dni.data import DeformationSettings, DigitsData, StrokesData, data_from_checkpoint
from asr_dni.data.digits import deform
from asr_dni.data.strokes import moves_of, pen_moves, thin, trace
from asr_dni.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

EIGHT = np.ones((3, 3))


def drawn(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def topology(shape):
    """Return how many pieces of ink there are, by scipy, and how many of paper, the outside one of them."""
    paper = np.pad(~shape, 1, constant_values=True)
    return ndimage.label(shape, EIGHT)[1], ndimage.label(paper)[1]


def points_of(strokes):
    return [point for stroke in strokes for point in stroke]


@pytest.fixture(scope="module")
def data():
    data = StrokesData()
    data.setup()
    return data


# ---------------------------------------------------------------------- thinning


def test_a_bar_becomes_its_middle_line():
    bar = np.zeros((1, 9, 20), dtype=bool)
    bar[0, 3:6, 2:18] = True
    (line,) = thin(bar)
    assert line[[0, 1, 2, 3, 5, 6, 7, 8]].sum() == 0
    assert line[4].sum() >= 16 - 3  # at its ends it may lose its thickness
    assert topology(line) == (1, 1)


def test_lines_of_one_pixel_stay():
    line = np.eye(12, dtype=bool)
    line[3, :4] = True
    np.testing.assert_array_equal(thin(line[None])[0], line)


@pytest.mark.parametrize("scale", [3, 4])
def test_pieces_and_holes_stay_and_nothing_thick_is_left(scale):
    """Of all digits at once, against scipy's count of connected pieces of ink and of paper."""
    pixels = DigitsData().examples()["test"].features
    shapes = (
        torch.nn.functional.interpolate(pixels[:, None], scale_factor=scale, mode="bicubic")[:, 0].numpy() > 7
    )
    for shape, line in zip(shapes, thin(shapes), strict=True):
        assert (line <= shape).all()
        pieces, n = ndimage.label(shape, EIGHT)
        for piece in range(1, n + 1):
            if (pieces == piece).sum() <= 16 and not line[pieces == piece].any():
                shape = shape & (pieces != piece)  # a dot, which may vanish
        assert topology(line) == topology(shape)
        blocks = line[1:, 1:] & line[1:, :-1] & line[:-1, 1:] & line[:-1, :-1]
        assert blocks.sum() <= 1


# ---------------------------------------------------------------------- tracing


def test_a_line_is_one_stroke_from_its_upper_end():
    line = drawn("....#", "...#.", "..#..", ".#...", "#....")
    assert trace(line) == [[(0, 4), (1, 3), (2, 2), (3, 1), (4, 0)]]


def test_a_corner_is_gone_round_and_a_ring_is_one_stroke():
    corner = drawn("#...", "#...", "####")
    assert trace(corner) == [[(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3)]]
    ring = drawn(".###.", "#...#", "#...#", ".###.")
    (stroke,) = trace(ring)
    assert stroke[0] == (0, 1)
    assert len(stroke) == 10
    assert max(abs(np.subtract(stroke[0], stroke[-1]))) == 1  # round it, to where it began


def test_a_crossing_is_passed_straight_on():
    cross = drawn("..#..", "..#..", "#####", "..#..", "..#..")
    strokes = trace(cross)
    assert strokes[0] == [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)]
    # The pen goes to the nearest end first.
    assert sorted(map(len, strokes[1:])) == [2, 2]


def test_every_point_is_drawn_once_and_the_pen_moves_to_neighbours():
    rng = np.random.default_rng(5)
    for line in thin(ndimage.gaussian_filter(rng.normal(size=(40, 24, 24)), (0, 2, 2)) > 0.05):
        strokes = trace(line)
        assert sorted(points_of(strokes)) == [tuple(point) for point in np.argwhere(line).tolist()]
        for stroke in strokes:
            assert np.abs(np.diff(stroke, axis=0)).max(initial=0) <= 1


# ---------------------------------------------------------------------- moves


def test_moves_are_right_and_down_and_say_where_strokes_end():
    down = [(row, 1) for row in range(5)]
    right = [(2, column) for column in range(3, 8)]
    single = [(9, 9)]
    expected = [
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [1, -1, 0, 0],  # without ink: from (4, 1) to (2, 3)
        [1, 0, 0, 0],
        [1, 0, 1, 1],
    ]
    np.testing.assert_array_equal(pen_moves([down, right, single]), expected)
    # Of an even number of points the last move is half as long.
    np.testing.assert_array_equal(pen_moves([down[:4]]), [[0, 1, 0, 0], [0, 0.5, 1, 1]])
    assert pen_moves([single]).shape == (0, 4)


def test_the_strokes_of_an_image_lie_on_its_ink():
    """A seven that is painted here: a bar and a slanted line, in pixels of 0 and 16."""
    seven = torch.zeros(1, 8, 8)
    seven[0, 1, 1:7] = 16
    for row in range(2, 8):
        seven[0, row, 7 - row + 1 if row > 1 else 6] = 16
    (moves,) = moves_of(seven)
    assert moves[-1, 3] == 1
    assert moves[:-1, 3].sum() == 0
    # From the left end of the bar or the lower end of the line: six pixels to the right and six down, to 0.75 pixels.
    extent = np.ptp(np.cumsum(np.vstack((np.zeros(2), moves[:, :2])), axis=0), axis=0) / 2
    assert extent == pytest.approx([5.5, 6.0], abs=0.8)


def test_digits_have_their_splits_and_are_padded_with_zeros(data):
    digits, strokes = DigitsData().examples(), data.examples()
    assert {split: len(one.labels) for split, one in strokes.items()} == {
        "train": 1157,
        "validation": 258,
        "test": 382,
    }
    for split, made in strokes.items():
        assert torch.equal(made.labels, digits[split].labels)
        assert made.names == digits[split].names
        ends = made.features[..., 3]
        assert (ends.sum(1) == 1).all()
        after = ends.cumsum(1) - ends  # 1 behind the end
        assert made.features[after.bool()].abs().sum() == 0
        assert made.features[..., 2].sum(1).min() >= 1
    assert data.n_features == 4
    assert data.protocol_of("test").endswith("forms 12 to 14 of 14")
    # A step is never farther than two points unless it is a jump.
    features = strokes["train"].features
    jump = torch.nn.functional.pad(features[:, :-1, 2], (1, 0)).bool()
    assert features[..., :2][~jump].abs().max() <= 1


# ---------------------------------------------------------------------- deformation


def test_moves_are_deformed_as_images_are():
    """A vector from the centre to a dot is moved to where the deformed image has the dot, by its centre of mass."""
    settings = DeformationSettings(rotation=25.0, slant=0.3, scale=1.3)
    data = StrokesData(settings, seed=3)
    size, n = 61, 12
    rng = np.random.default_rng(1)
    vectors = torch.from_numpy(rng.uniform(-9, 9, (n, 2)))  # right, down
    grid = torch.arange(size) - (size - 1) / 2
    dots = torch.stack(
        [torch.exp(-((grid[:, None] - y) ** 2 + (grid[None] - x) ** 2) / 4).float() for x, y in vectors]
    )
    moves = torch.cat((vectors, torch.tensor([[1.0, 0.0]]).expand(n, 2)), 1)[:, None].float()
    ids = torch.arange(n)
    moved = data.augment(moves, ids, epoch=2)
    from asr_dni.philox import derive_key, uniform

    draws = 2 * uniform(derive_key(3, "deformation", 2), ids, 6) - 1
    images = deform(dots, settings, draws)
    mass = images.sum((1, 2))
    x = (images.sum(1) * grid).sum(1) / mass
    y = (images.sum(2) * grid).sum(1) / mass
    torch.testing.assert_close(moved[:, 0, :2], torch.stack((x, y), 1), atol=0.1, rtol=0.02)
    assert (moved[:, 0, :2] - moves[:, 0, :2]).abs().max() > 1
    assert torch.equal(moved[..., 2:], moves[..., 2:])
    assert torch.equal(data.augment(moves, ids, epoch=2), moved)
    assert not torch.equal(data.augment(moves, ids, epoch=3), moved)


def test_turning_keeps_lengths_and_nothing_changes_without_deformation(data):
    moves = data.examples()["train"].features[:50]
    turned = StrokesData(DeformationSettings(rotation=40.0)).augment(moves, torch.arange(50), 0)
    torch.testing.assert_close(turned[..., :2].norm(dim=-1), moves[..., :2].norm(dim=-1))
    angle = torch.atan2(turned[:, 0, 1], turned[:, 0, 0]) - torch.atan2(moves[:, 0, 1], moves[:, 0, 0])
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    assert 0.2 < angle.abs().max() <= math.radians(40.0) + 1e-5
    assert data.augment(moves, torch.arange(50), 0) is moves


def test_a_shift_is_refused():
    with pytest.raises(UserError, match=r"deformation\.shift: 0.5 would do nothing to strokes"):
        StrokesData(DeformationSettings(shift=0.5))


def test_a_network_is_trained_and_evaluated_on_strokes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model.network.units", "8", "--trainer.max_epochs", "2", "--wandb", "disabled"]
    curve = ["--noise_curve.sigmas=[0,1]", "--noise_curve.draws", "1"]
    assert main(["fit", "--config", "strokes_lstm_dni", "--name", "strokes", *small, *curve]) in (0, None)
    (checkpoint,) = tmp_path.glob("runs/strokes/version_0/checkpoints/last.ckpt")
    data = data_from_checkpoint(checkpoint)
    assert type(data) is StrokesData
    assert data.deformation == DeformationSettings(rotation=5.0, slant=0.1, scale=1.07)
    assert main(["noise-curve", str(checkpoint), "--sigmas=0,1", "--draws", "1"]) in (0, None)
    assert "strokes" in capsys.readouterr().out.lower()
