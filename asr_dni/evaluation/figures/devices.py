"""The figure of a memory device: how far off its conductances are, and what time makes of them."""

import dataclasses
import math
from functools import cache

import torch
from torch import Tensor

from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.noise import AgingDevice, Cells, Device
from asr_dni.philox import derive_key, normal
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Style, Tick, curve_style
from asr_dni.plotting.style import ordered_colors

_TIMES = {when: TIMES[when] for when in ("1 s", "1 hour", "1 day", "1 year")}
_DEVICES = 8000
"""That means and deviations are of, with the same numbers at every g and time; a deviation is known to 1 %."""
_LEVELS = 41
_STEPS = 25
_SHARES = (0.25, 0.5, 1.0)


def device_figure(device: Cells, name: str) -> Figure:
    """Specify the picture of a device: the deviation of conductances over g, and where it ages g over time.

    Args:
        device: as it is set, but for its time, of which several are shown.
        name: stands above.
    """
    ages = {when: time for when, time in _TIMES.items() if _known(device, time)}
    g = torch.linspace(device.g_min, device.g_max, _LEVELS)
    deviations = []
    if isinstance(device, Device):
        deviations.append(("programming alone", device.sigma * device.programming_std(g.clamp(min=1e-6))))
    deviations += [(f"read after {when}", _read(device, g, time)[1]) for when, time in ages.items()]
    if not ages:
        deviations.append(("as read", _read(device, g, None)[1]))
    unit = device.conductance_unit
    panels = [
        Panel(
            Axis("target conductance g", unit),
            Axis("standard deviation", unit),
            tuple(
                Line(g.tolist(), deviation.tolist(), label=label, style=_smooth(place))
                for place, (label, deviation) in enumerate(deviations)
            ),
            "One device",
        )
    ]
    if len(ages) > 1:
        panels.append(_over_time(device))
    return Figure(
        name if name == type(device).__name__ else f"{name}: {type(device).__name__}",
        tuple(panels),
        f"Means and deviations of {_DEVICES} devices, bands ±1 standard deviation. Settings: {_settings(device)}.",
        columns=2,
        legend=Legend(),
    )


def _over_time(device: Cells) -> Panel:
    times = _known_times(device)
    lines = []
    for color, share in zip(ordered_colors(len(_SHARES)), _SHARES, strict=True):
        g = torch.tensor([device.g_min + share * (device.g_max - device.g_min)])
        moments = [tuple(its.item() / g.item() for its in _read(device, g, time)) for time in times]
        means = [mean for mean, _ in moments]
        low, high = ([mean + side * deviation for mean, deviation in moments] for side in (-1, 1))
        label = f"g = {g.item():.4g} {device.conductance_unit}"
        lines.append(Line(times, means, low, high, label=label, style=Style(color, "none", "dash")))
    ticks = tuple(Tick(time, when) for when, time in TIMES.items() if _known(device, time))
    return Panel(
        Axis("time since programming", scale="log", limits=(times[0], times[-1]), ticks=ticks),
        Axis("read / target conductance"),
        tuple(lines),
        "Drift, without compensation",
    )


def _known_times(device: Cells) -> list[float]:
    assert isinstance(device, AgingDevice)
    first, last = max(1.0, device.times[0]), min(_TIMES["1 year"], device.times[1])
    return [first * (last / first) ** (step / (_STEPS - 1)) for step in range(_STEPS - 1)] + [last]


def _known(device: Cells, time: float) -> bool:
    return isinstance(device, AgingDevice) and device.times[0] <= time <= device.times[1]


def _read(device: Cells, g: Tensor, time: float | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of what is read, for each target."""
    aged = (
        dataclasses.replace(device, time=time)
        if time is not None and isinstance(device, AgingDevice)
        else device
    )
    _, read = aged.conductances(g.expand(_DEVICES, len(g)), _numbers)
    return read.mean(0), read.std(0)


@cache
def _numbers(purpose: str) -> Tensor:
    ids, step = torch.arange(_DEVICES), torch.zeros(1, dtype=torch.int64)
    return normal(derive_key(0, "figure of a device", purpose), ids, step, 1, 1)[0]


def _smooth(place: int) -> Style:
    return dataclasses.replace(curve_style(place), marker="none")


def _settings(device: Cells) -> str:
    values = {its.name: getattr(device, its.name) for its in dataclasses.fields(device)}
    shown = {name: value for name, value in values.items() if name not in ("time", "per", "compensation")}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) and math.isfinite(value) else f"{name} {value}"
        for name, value in shown.items()
    )
