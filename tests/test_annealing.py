import math
from types import SimpleNamespace

import pytest
from scipy import stats

from asr_dni.errors import UserError
from asr_dni.model import NoiseAnnealing

PROGRESS = [0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.99, 1.0]


def expected(schedule: str, start: float, sigma: float, p: float, warm_up: float, length: float) -> float:
    """The formulas of the documentation, written once more."""
    if schedule == "constant":
        return start if p < warm_up else sigma
    if p <= warm_up:
        return start
    q = min(1.0, (p - warm_up) / length)
    return {
        "linear": start * (1 - q) + sigma * q,
        "cosine": (start + sigma) / 2 + (start - sigma) / 2 * math.cos(math.pi * q),
        "exponential": math.exp((1 - q) * math.log(start) + q * math.log(sigma)) if start and sigma else 0,
        "steps": start + (sigma - start) * sum(q >= k / 5 for k in range(1, 6)) / 5,
    }[schedule]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential", "steps"])
@pytest.mark.parametrize(("start", "sigma"), [(0.25, 2.0), (3.0, 0.5)])
@pytest.mark.parametrize(("warm_up", "length"), [(0.0, 1.0), (0.2, 0.5), (0.5, 0.5)])
def test_schedules_are_the_closed_forms_up_and_down(schedule, start, sigma, warm_up, length):
    annealing = NoiseAnnealing(sigma, start, schedule, warm_up, length, n_steps=5)
    for p in PROGRESS:
        assert annealing.sigma_at(p) == pytest.approx(expected(schedule, start, sigma, p, warm_up, length))
    assert annealing.sigma_at(1.0) == pytest.approx(sigma)


def test_values_worked_out_by_hand():
    assert NoiseAnnealing(2.0, warm_up=0.2, length=0.4).sigma_at(0.3) == pytest.approx(0.5)
    assert NoiseAnnealing(2.0, schedule="cosine").sigma_at(0.25) == pytest.approx(1 - math.sqrt(0.5))
    assert NoiseAnnealing(4.0, 1.0, "exponential").sigma_at(0.5) == pytest.approx(2.0)
    steps = NoiseAnnealing(4.0, schedule="steps", n_steps=4)
    assert [steps.sigma_at(p) for p in (0, 0.24, 0.25, 0.6, 0.75, 1)] == [0, 0, 1, 2, 3, 4]


def progress(by: str, step: int, epoch: int, steps: float = 40, epochs: int = 4) -> float:
    trainer = SimpleNamespace(
        estimated_stepping_batches=steps, global_step=step, current_epoch=epoch, max_epochs=epochs
    )
    return NoiseAnnealing(1.0, by=by).sigma_now(trainer)


def test_by_step_and_by_epoch():
    assert [progress("step", step, step // 10) for step in (0, 5, 10, 40)] == [0, 0.125, 0.25, 1]
    assert [progress("epoch", step, step // 10) for step in (0, 5, 10, 19, 20)] == [0, 0, 0.25, 0.25, 0.5]
    # A run whose length is given in steps has no epochs to go by.
    assert progress("epoch", 5, 0, epochs=-1) == 0.125


def test_a_drawn_strength_is_uniform_from_the_beginning_to_the_schedules():
    """Kolmogorov-Smirnov over 2,000 steps, in the second half of a ramp from 0.5 to 2; alarms 1e-6."""
    annealing = NoiseAnnealing(2.0, 0.5, "linear", length=0.5, drawn="batch")
    trainer = SimpleNamespace(estimated_stepping_batches=4000, current_epoch=0, max_epochs=1)

    def strengths(seed: int) -> list[float]:
        found = []
        for step in range(2000, 4000):
            trainer.global_step = step
            found.append(annealing.sigma_now(trainer, seed))
        return found

    one, other = strengths(1), strengths(2)
    assert stats.kstest(one, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-6
    assert one == strengths(1)
    assert abs(stats.pearsonr(one, other).statistic) < 4.9 / math.sqrt(2000)
    trainer.global_step = 1000  # half-way up
    halfway = [annealing.sigma_now(trainer, seed) for seed in range(500)]
    assert min(halfway) >= 0.5
    assert 1.2 < max(halfway) <= 1.25
    assert annealing.training_settings()["annealing"]["drawn"] == "batch"
    assert "drawn" not in NoiseAnnealing(2.0).training_settings()["annealing"]


def test_a_run_without_end_cannot_be_annealed():
    with pytest.raises(UserError, match=r"give trainer\.max_epochs"):
        progress("step", 1, 1, steps=math.inf)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"sigma": -1.0}, "sigma is -1"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"start": math.inf}, "start is inf"),
        ({"schedule": "quadratic"}, "quadratic"),
        ({"schedule": "exponential", "sigma": 1.0}, "start above 0"),
        ({"warm_up": 1.5}, "warm_up is 1.5"),
        ({"length": 0.0}, "length is 0"),
        ({"by": "batch"}, "by is 'batch'"),
        ({"n_steps": 0}, "n_steps is 0"),
    ],
)
def test_a_wrong_setting_is_named(arguments, named):
    with pytest.raises(UserError, match=f"annealing .*{named}"):
        NoiseAnnealing(**arguments)
