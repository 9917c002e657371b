"""Which noise of the training a network is to be compensated for, as commands are told it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from asr_dni.errors import UserError
from asr_dni.identity import compensation_settings
from asr_dni.model import KeywordSpotter
from asr_dni.noise import Hardware, Noise

Compensated: TypeAlias = Literal["auto"] | float
"""The training's sigma: a number, or ``auto``, what the checkpoint says of it."""


def compensate_noise(
    noise: Noise, given: Compensated | None, model: KeywordSpotter, name: str = "compensation"
) -> Noise:
    """Return a noise under which the network makes up for noise that it had in training, see ``Noise.compensating``.

    Args:
        noise: at inference; its sigma may be set later.
        given: sigma of the training's noise, which is otherwise like that at inference; ``auto``: the noise that the
            network was trained under, with its own scale, sites and arrays, at the sigma that its annealing reached;
            ``None``: nothing is made up for.
        model: the trained network.
        name: what messages call the setting.

    Raises:
        UserError: the noise is not Gaussian on outputs alone, a sigma is not above 0, or there was no noise.
    """
    if given is None:
        return noise
    if given == "auto":
        sigma = model.final_sigma_train
        if not sigma > 0:
            raise UserError(
                f"{name} is auto, but the network was trained without noise: give the sigma to soften its gates for,"
                " such as 1.5"
            )
        if model.trainings and model.trainings[-1].get("annealing.drawn", "no") != "no":
            raise UserError(
                f"{name} is auto, but the network was trained under strengths drawn at random: give the sigma that is"
                " meant, such as 1.5"
            )
        if model.highest_sigma_train is not None:  # kept on the way to the annealing's sigma
            sigma = min(sigma, model.highest_sigma_train)
        trained: Hardware | float = model.noise_settings.at(sigma).hardware
    elif given > 0:
        trained = given
    else:
        raise UserError(f"{name} is {given:g}: give a sigma above 0, or auto")
    try:
        return noise.compensating(trained)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def remark_without_effect(noise: Noise, sigmas: Sequence[float]) -> str | None:
    """Return a line on the sigmas at which no noise of the training is missing; ``None`` where there are none.

    Args:
        noise: with its compensation.
        sigmas: at inference.
    """
    trained = noise.compensation
    if trained is None:
        return None
    settings, here = compensation_settings(trained), compensation_settings(noise.hardware)
    if any(settings[key] != here.get(key) for key in settings if key != "sigma"):
        return None
    without = [sigma for sigma in sigmas if sigma >= settings["sigma"]]
    if not without:
        return None
    listed = ", ".join(f"{sigma:g}" for sigma in without)
    return f"compensation does nothing at sigma {listed}: none of the training's {settings['sigma']:g} is missing there"
