"""Memory devices against IBM/aihwkit's noise models, where it is installed, and its slips, which are not copied."""

from collections.abc import Callable

import pytest
import torch
from aihwkit_core import import_aihwkit
from programmed_weights import programmed
from torch import Tensor

from asr_dni.noise import PCM, AgingDevice, Hermes, ReRAMCMO, ReRAMWan2022, StateIndependent

inference = pytest.importorskip("aihwkit.inference")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array_wrap__")]

DOUBLE = torch.float64
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
AT = {"0 s": 0.0, "1 s": 1.0, "1 h": HOUR, "1 day": DAY, "1 year": YEAR}
ROWS = 20_000

PEERS: dict[str, tuple[Callable[..., AgingDevice], Callable[[], object], list[str]]] = {
    "PCM": (PCM, lambda: inference.PCMLikeNoiseModel(), list(AT)),
    "Hermes, 2 devices": (Hermes, lambda: inference.HermesNoiseModel(num_devices=2), list(AT)),
    "Hermes, 1 device": (
        lambda **beside: Hermes(devices=1, **beside),
        lambda: inference.HermesNoiseModel(num_devices=1),
        list(AT),
    ),
    "StateIndependent": (StateIndependent, lambda: inference.StateIndependentNoiseModel(), list(AT)),
    "ReRAMWan2022": (
        ReRAMWan2022,
        lambda: inference.ReRamWan2022NoiseModel(g_max=40.0),
        ["1 s", "1 day"],
    ),
    "ReRAMCMO, 2%": (ReRAMCMO, lambda: inference.ReRamCMONoiseModel(acceptance_range=2), list(AT)),
    "ReRAMCMO, 0.2%": (
        lambda **beside: ReRAMCMO(acceptance="0.2%", **beside),
        lambda: inference.ReRamCMONoiseModel(acceptance_range=0.2),
        list(AT),
    ),
}
EVERY = [
    pytest.param(ours, theirs, AT[time], id=f"{name}, {time}")
    for name, (ours, theirs, times) in PEERS.items()
    for time in times
]


class Numbers:
    """The numbers of a matrix's devices, the same whenever they are asked for."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._drawn = like, {}

    def normal(self, purpose: str = "") -> Tensor:
        """Return a number for each weight."""
        if purpose not in self._drawn:
            self._drawn[purpose] = torch.randn(self._like.shape, dtype=self._like.dtype)
        return self._drawn[purpose]


@pytest.mark.parametrize(("ours", "theirs", "time"), EVERY)
def test_of_the_same_random_numbers_a_device_has_the_same_conductance(ours, theirs, time):
    """Programming, drift and read of each device, on a grid of conductances."""
    model, peer = ours(time=time), theirs()
    g = torch.linspace(model.g_min, model.g_max, 401, dtype=DOUBLE)
    torch.manual_seed(1)
    numbers = {purpose: torch.randn(g.shape, dtype=DOUBLE) for purpose in ("programming", "drift", "read")}
    torch.manual_seed(1)
    their_programmed = peer.apply_programming_noise_to_conductance(g.clone())
    if isinstance(model, ReRAMWan2022):
        torch.manual_seed(1)  # a device keeps its number; the peer draws a new one for each time
    parameters = peer.generate_drift_coefficients(g.clone())
    theirs_now = peer.apply_drift_noise_to_conductance(their_programmed, parameters, time)
    our_programmed, ours_now = model.conductances(g, numbers.__getitem__)
    torch.testing.assert_close(our_programmed, their_programmed, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_now, theirs_now, rtol=1e-6, atol=1e-6)
    assert (ours_now - g).abs().max() > 0.1


@pytest.mark.parametrize(("ours", "theirs", "time"), [case for case in EVERY if not case.id.endswith(" 0 s")])
def test_the_same_weights_have_mean_and_deviation_of_the_peer(ours, theirs, time):
    """20,000 rows of four weights, of both; 8 comparisons, each with a false alarm in 1e-6 cases."""
    weight = torch.tensor([-1.0, 0.0, 0.3, 0.6], dtype=DOUBLE).expand(ROWS, 4).clone()
    torch.manual_seed(2)
    its = theirs().apply_noise(weight, time).reshape(weight.shape)
    mine = programmed(ours(time=time), weight)
    for a, b in zip(mine.T, its.T, strict=True):
        error = (a.var() + b.var()).div(ROWS).sqrt()
        assert (a.mean() - b.mean()).abs() < 4.9 * error
        squares = [(values - values.mean()) ** 2 for values in (a, b)]
        error = (squares[0].var() + squares[1].var()).div(ROWS).sqrt()
        assert (squares[0].mean() - squares[1].mean()).abs() < 4.9 * error


@pytest.mark.parametrize("compensation", ["tensor", "output"])
def test_drift_is_compensated_by_the_peers_readout(compensation):
    from aihwkit.inference.compensation.drift import GlobalDriftCompensation, PerColumnDriftCompensation

    peer = GlobalDriftCompensation() if compensation == "tensor" else PerColumnDriftCompensation()
    weight = torch.randn(12, 30, dtype=DOUBLE)
    numbers, unit = Numbers(weight), float(weight.abs().max()) / 25
    plain = PCM(time=DAY).program(weight, numbers)
    sides = [
        PCM(time=DAY).conductances(g / unit, lambda purpose, side=side: numbers.normal(f"{side} {purpose}"))
        for side, g in (("+", weight.clamp(min=0)), ("-", (-weight).clamp(min=0)))
    ]
    before, now = ((plus - minus) * unit for plus, minus in zip(*sides, strict=True))
    torch.testing.assert_close(now, plain)
    inputs = peer.get_readout_tensor(30).to(DOUBLE)
    alpha = peer.readout(inputs @ before.T) / peer.readout(inputs @ now.T)
    compensated = PCM(time=DAY, compensation=compensation).program(weight, numbers)
    torch.testing.assert_close(compensated, plain * alpha.reshape(-1, 1))
    assert float(alpha.min()) > 1.2


class TestSlipsThatAreNotCopied:
    def test_the_polynomial_weight_modifier_has_less_noise_than_the_devices(self):
        import_aihwkit()
        from aihwkit.simulator.parameters.inference import WeightModifierParameter

        coefficients = torch.tensor(WeightModifierParameter().coeffs, dtype=DOUBLE) * 25
        theirs = inference.PCMLikeNoiseModel()
        assert theirs.prog_coeff[1] == pytest.approx(1.9650)
        assert float(coefficients[1]) == pytest.approx(1.92)
        ours = float(PCM().programming_std(torch.tensor(25.0, dtype=DOUBLE)))
        assert ours == pytest.approx(sum(theirs.prog_coeff))
        assert ours / float(coefficients.sum()) == pytest.approx(1.045, abs=1e-3)

    def test_wan_is_fitted_for_40_microsiemens_whatever_g_max_is(self):
        """At the peer's default g_max of 25 a weight is 1.6 times as far off; 1 false alarm in 1e6 cases or fewer."""
        weight = torch.full((ROWS, 1), 1.0, dtype=DOUBLE)
        torch.manual_seed(3)
        default = inference.ReRamWan2022NoiseModel().apply_noise(weight, DAY)
        ours = programmed(ReRAMWan2022(time=DAY), weight)
        off = [(its - its.mean()).std().item() for its in (default, ours)]
        assert off[0] / off[1] == pytest.approx(1.6, rel=0.05)

    def test_an_acceptance_of_2_percent_is_2_percent(self):
        """The peer's default, 2e-2, is no key of its table and means 0.2 %."""
        assert inference.ReRamCMONoiseModel().acceptance_range == 0.2
        g = torch.tensor([50.0], dtype=DOUBLE)
        fine, coarse = (float(ReRAMCMO(acceptance=its).programming_std(g)) for its in ("0.2%", "2%"))
        theirs = inference.ReRamCMONoiseModel()
        offset, slope = theirs.coeff_dict[theirs.acceptance_range]
        assert offset + slope * 50 == pytest.approx(fine)
        assert float(ReRAMCMO().programming_std(g)) == coarse > 10 * fine

    def test_time_0_is_a_time(self):
        weight = torch.ones(4, 1, dtype=DOUBLE)
        with pytest.raises(ValueError, match="exactly two elements"):
            inference.PCMLikeNoiseModel().apply_noise(weight, 0.0)
        assert programmed(PCM(time=0.0), weight).isfinite().all()

    def test_read_noise_follows_what_was_programmed_as_in_the_peers_code(self):
        """Its documentation has the target's conductance."""
        peer = inference.PCMLikeNoiseModel(prog_noise_scale=0)
        g_programmed = torch.full((ROWS,), 2.0, dtype=DOUBLE)
        torch.manual_seed(4)
        theirs = peer.apply_drift_noise_to_conductance(g_programmed, torch.zeros(ROWS), 0.0)
        model, numbers = PCM(), torch.randn(ROWS, dtype=DOUBLE)
        ours = model.read(g_programmed, torch.full((ROWS,), 20.0, dtype=DOUBLE), lambda purpose: numbers)
        assert float(theirs.std() / ours.std()) == pytest.approx(1, rel=0.05)
