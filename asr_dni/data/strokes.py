"""Pen strokes of handwritten digits: what a pen would have moved, traced from images."""

import math
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from asr_dni.data.digits import DeformationSettings, DigitsData, source_maps
from asr_dni.data.in_memory import Examples
from asr_dni.errors import UserError
from asr_dni.philox import derive_key, uniform

Image = NDArray[np.bool_]
Point = tuple[int, int]

_NO_DEFORMATION = DeformationSettings()
_FINER = 4
_INK = 7.0
"""Of 16: 88 % of the training digits are one piece then, with the digit's loops (fours aside); at 10 it is 67 %."""
_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thin(images: Image) -> Image:
    """Thin shapes to lines of one pixel, by T. Zhang and C. Suen (Comm. ACM 27, 236, 1984).

    Args:
        images: ``(N, H, W)``, ink is true.

    Returns:
        Ink of the same shape: what is connected stays connected, ends stay, and loops stay loops. A dot may vanish:
        squares of two by two points do.
    """
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    inner = padded[:, 1:-1, 1:-1]
    height, width = images.shape[1:]
    thinner = True
    while thinner:
        thinner = False
        for first in (True, False):
            around = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _NEIGHBOURS]
            inked = np.sum(around, axis=0)
            runs = np.sum([~one & around[(k + 1) % 8] for k, one in enumerate(around)], axis=0)
            north, east, south, west = around[::2]
            keeps = (north | west) & east & south if first else (south | east) & north & west
            removed = inner & (inked >= 2) & (inked <= 6) & (runs == 1) & ~keeps
            thinner |= bool(removed.any())
            inner &= ~removed
    return inner


def trace(skeleton: Image) -> list[list[Point]]:
    """Follow the lines of a thinned shape with a pen.

    A stroke begins at the end of a line, the nearest one to where the pen was lifted, and first of all the topmost;
    where there is no end left, at the nearest, or topmost, point of a line that is not drawn yet. It goes on to a
    neighbour that is not drawn yet, straight on where it can, and ends where there is none.

    Args:
        skeleton: ``(H, W)``, as :func:`thin` leaves it.

    Returns:
        Strokes, each its points as row and column, in the order of the pen; every point of the skeleton is in one.
    """
    left: set[Point] = {(y, x) for y, x in np.argwhere(skeleton).tolist()}
    near = {(y, x): [one for j, i in _NEIGHBOURS if (one := (y + j, x + i)) in left] for y, x in left}
    strokes: list[list[Point]] = []
    pen: Point | None = None

    def further(point: Point) -> list[Point]:
        return [one for one in near[point] if one in left]

    while left:
        ends = [point for point in left if len(further(point)) <= 1] or list(left)
        pen = min(ends, key=partial(_nearness, pen))
        stroke = [pen]
        left.remove(pen)
        while following := further(pen):
            pen = max(following, key=partial(_straightness, stroke[-3:]))
            stroke.append(pen)
            left.remove(pen)
        strokes.append(stroke)
    return strokes


def _nearness(pen: Point | None, point: Point) -> tuple[int, Point]:
    """Return a point's squared distance from the pen, and the point, by which it is nearer than others as far away."""
    return (0 if pen is None else (point[0] - pen[0]) ** 2 + (point[1] - pen[1]) ** 2), point


def _straightness(drawn: list[Point], point: Point) -> float:
    """Return the cosine of the turn that a step from the last points is; after one point, more for straight steps."""
    pen = drawn[-1]
    y, x = point[0] - pen[0], point[1] - pen[1]
    ahead = (pen[0] - drawn[0][0], pen[1] - drawn[0][1])
    return float((y * ahead[0] + x * ahead[1] + (ahead == (0, 0))) / math.hypot(y, x))


def pen_moves(strokes: list[list[Point]]) -> NDArray[np.float32]:
    """Return strokes as the moves of a pen from every second of their points to the next.

    One or two points, which thinning leaves beside corners, are no strokes.

    Args:
        strokes: points as row and column.

    Returns:
        ``(n, 4)``: to the right and down, in units of two points; whether a stroke ends there, so that the next move
        is one without ink; whether the digit does.
    """
    drawn = [stroke[:-1:2] + stroke[-1:] for stroke in strokes if len(stroke) > 2]
    points = np.array([point for stroke in drawn for point in stroke], dtype=np.float32).reshape(-1, 2)
    ends = np.cumsum([len(stroke) for stroke in drawn], dtype=int) - 1
    moves = np.zeros((max(len(points) - 1, 0), 4), dtype=np.float32)
    moves[:, :2] = np.diff(points, axis=0)[:, ::-1] / 2
    moves[ends - 1, 2] = 1
    moves[-1:, 3] = 1
    return moves


def moves_of(pixels: Tensor) -> list[NDArray[np.float32]]:
    """Return what a pen would have done to draw images.

    Args:
        pixels: ``(N, H, W)`` from 0 (paper) to 16 (ink).

    Returns:
        Of each image :func:`pen_moves`.
    """
    finer = interpolate(pixels[:, None], scale_factor=_FINER, mode="bicubic")[:, 0]
    return [pen_moves(trace(skeleton)) for skeleton in thin((finer > _INK).numpy())]


@cache
def _all_moves() -> dict[str, Examples]:
    """Return the moves of all digits, padded with zeros to those of the longest."""
    digits = DigitsData().examples()
    moves = {
        split: [torch.from_numpy(one) for one in moves_of(made.features)] for split, made in digits.items()
    }
    longest = max(len(one) for its in moves.values() for one in its)
    padded = {
        split: pad_sequence([*its, its[0].new_zeros(longest, 4)], batch_first=True)[:-1]
        for split, its in moves.items()
    }
    return {split: Examples(padded[split], made.labels, made.names) for split, made in digits.items()}


class StrokesData(DigitsData):
    """Handwritten digits as the moves of a pen, in the spirit of E. de Jong's MNIST digits stroke sequence data.

    No pen was recorded: the moves are traced from the images of :class:`~asr_dni.data.digits.DigitsData`, whose splits
    these are. An image is made four times finer (bicubic), ink is where it is above 7 of 16, that is thinned to lines
    (:func:`thin`), and the lines are followed (:func:`trace`). A step is a move over two points of them, half a pixel
    of the image, or without ink to where the next stroke begins: right, down, end of the stroke, end of the digit
    (:func:`pen_moves`). After its end a digit is padded with zeros to the longest of all.

    Args:
        deformation: what happens to training digits, see :class:`~asr_dni.data.digits.DeformationSettings`; moves
            say nothing of the place on the paper, so that its ``shift`` has to be 0.
        batch_size: digits in a batch (per process).
        seed: of the order of the digits and of their deformation.

    Raises:
        UserError: a setting that is not valid.
    """

    identity = "pen strokes traced from the digits of scikit-learn (UCI test part)"

    def __init__(
        self, deformation: DeformationSettings = _NO_DEFORMATION, batch_size: int = 64, seed: int = 0
    ) -> None:
        super().__init__(deformation, batch_size, seed, normalize=False)
        if deformation.shift:
            raise UserError(
                f"deformation.shift: {deformation.shift} would do nothing to strokes, which are moves; give 0"
            )

    def examples(self) -> dict[str, Examples]:
        """Return the moves of each split's digits, ``(n, T, 4)``, and the digits that they are.

        Raises:
            UserError: scikit-learn has other images.
        """
        return dict(_all_moves())

    def augment(self, features: Tensor, clip_ids: Tensor, epoch: int) -> Tensor:
        """Turn, slant and stretch digits ``(N, T, 4)``, each with new values in every epoch."""
        if not self.deformation.changes:
            return features
        draws = 2 * uniform(derive_key(self.seed, "deformation", epoch), clip_ids, 6) - 1
        there = torch.linalg.inv(source_maps(self.deformation, draws))
        moved = torch.einsum("nij,ntj->nti", there, features[..., [1, 0]])  # rows, columns
        return torch.cat((moved[..., [1, 0]], features[..., 2:]), -1)
