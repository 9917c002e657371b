"""The routes that give recordings: of a run's data set by position, or uploaded; never by a path."""

import io
from collections.abc import Callable
from urllib.parse import urlencode

import torch
from dash import Dash
from flask import Response, abort, request, send_file

from asr_dni.dashboard.listening import as_wav
from asr_dni.dashboard.services import Services
from asr_dni.errors import UserError

_CLIP, _UPLOAD = "/audio/clip.wav", "/audio/upload.wav"


def clip_address(run: str, checkpoint: str, position: int) -> str:
    """Return where a clip of the test split of a run's data is heard."""
    return f"{_CLIP}?{urlencode({'run': run, 'checkpoint': checkpoint, 'clip': position})}"


def upload_address(identity: str) -> str:
    """Return where an uploaded recording is heard."""
    return f"{_UPLOAD}?{urlencode({'upload': identity})}"


def register_audio(app: Dash, services: Services) -> None:
    """Add the routes to a dashboard, once."""
    if _CLIP in {rule.rule for rule in app.server.url_map.iter_rules()}:
        return

    def clip() -> Response:
        network = services.network(request.args.get("run", ""), request.args.get("checkpoint", ""))
        position = request.args.get("clip", -1, type=int)
        with network.lock:
            found = network.clips[position]
        if found.samples is None or found.sample_rate is None:
            raise UserError("these data are no recordings")
        return _wav(as_wav(found.samples, found.sample_rate))

    def upload() -> Response:
        from asr_dni.data.audio import FULL_SCALE

        found = services.uploads.get(request.args.get("upload", ""))
        samples = torch.from_numpy(found.samples).float() / FULL_SCALE
        return _wav(as_wav(samples, found.sample_rate))

    for path, answer in ((_CLIP, clip), (_UPLOAD, upload)):
        app.server.add_url_rule(path, path, _told(answer))


def _wav(contents: bytes) -> Response:
    """Return a file of which browsers may ask for parts."""
    answer = send_file(io.BytesIO(contents), mimetype="audio/wav", conditional=True, max_age=0)
    answer.headers["Cache-Control"] = "private, max-age=600"
    return answer


def _told(answer: Callable[[], Response]) -> Callable[[], Response]:
    """Return what says in one line why there is no recording."""

    def answered() -> Response:
        try:
            return answer()
        except (UserError, IndexError) as error:
            abort(Response(f"{error}\n", 404, mimetype="text/plain"))

    return answered
