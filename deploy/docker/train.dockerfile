# The trainer: docker build -f deploy/docker/train.dockerfile -t enzyme-stability-trainer .
# `docker buildx imagetools inspect` of the base prints its digest; --build-arg BASE=<base>@sha256:<digest> pins the content too.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=train,plm,track,tune,gcp,vertex
# PyTorch for the CPU, or for a GPU with CUDA=cu126 or another version that PyTorch has builds for.
ARG CUDA=
ARG TORCH_INDEX=https://download.pytorch.org/whl/${CUDA:-cpu}
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deploy/docker/install.sh deploy/docker/
# Dependencies first: they are installed anew only where their list has changed. The secret is a pip.conf, for an index of your own.
COPY src/enzyme_stability/__init__.py src/enzyme_stability/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf deploy/docker/install.sh "${EXTRAS}"
COPY src src
RUN --mount=type=secret,id=pip,target=/etc/pip.conf deploy/docker/install.sh "${EXTRAS}"

FROM ${BASE}
# libgomp1 is what LightGBM runs its threads with. Debian keeps only the latest of its patched versions, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home enzyme
COPY --from=build /opt/venv /opt/venv
# The LD_LIBRARY_PATH is where Google Cloud mounts the driver of a GPU.
ENV PATH=/opt/venv/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/home/enzyme
USER 10001:10001
# All that is written is in here or in /tmp: runs in outputs/, downloads, language models, embeddings.
WORKDIR /home/enzyme
VOLUME /home/enzyme
ENTRYPOINT ["enzyme-stability", "train"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="enzyme-stability-trainer" \
      org.opencontainers.image.description="Trains predictors of the melting temperature of enzymes" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
