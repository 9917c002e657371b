# The base decides what else is in the image: any Debian or Ubuntu image will do, with or without Python 3.11+.
#
#   docker build -t asr-dni .
#   docker build -t asr-dni --build-arg BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
#
# torch's own wheels carry the CUDA libraries, so an image on the default base trains on a GPU too, where the
# engine hands one in (docker run --gpus all).
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}

# gcc: the recurrent kernels are compiled for the very CPU that they run on, at first use (and cached under HOME).
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc libc6-dev \
        $(command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || echo python3 python3-venv) \
    && rm -rf /var/lib/apt/lists/*

# Everyone may write to these folders, so that `docker run --user` works with any user of the host.
ARG USER_ID=1000
RUN (id -un "${USER_ID}" >/dev/null 2>&1 || useradd --uid "${USER_ID}" --user-group --no-create-home spotter) \
    && folders="/home/spotter /home/spotter/.cache /home/spotter/.config /workspace /data /runs" \
    && mkdir -p ${folders} && chown "${USER_ID}" ${folders} && chmod 1777 ${folders} \
    && ln -s /data /runs /workspace/

# The dependencies are the large layer: it is rebuilt only when the lock changes.
COPY requirements.txt /tmp/requirements.txt
RUN python3 -m venv /opt/asr-dni \
    && /opt/asr-dni/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
ENV PATH=/opt/asr-dni/bin:${PATH}

COPY pyproject.toml setup.py README.md LICENSE /tmp/asr-dni/
COPY asr_dni /tmp/asr-dni/asr_dni
COPY conf /tmp/asr-dni/conf
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /tmp/asr-dni && rm -r /tmp/asr-dni
COPY conf /workspace/conf

# Relative paths, the defaults `data` and `runs` and those in conf/ among them, are taken from here: `data` and `runs`
# are links to the two volumes.
WORKDIR /workspace
VOLUME ["/data", "/runs"]
# USER is also the name of the user for code that asks for one where `--user` gives a number without a name.
ENV HOME=/home/spotter USER=spotter PYTHONUNBUFFERED=1
USER ${USER_ID}
ENTRYPOINT ["asr-dni"]
CMD ["--help"]
