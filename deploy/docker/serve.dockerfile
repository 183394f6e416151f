# The service: docker build -f deploy/docker/serve.dockerfile -t enzyme-stability-server .
# `docker buildx imagetools inspect` of the base prints its digest; --build-arg BASE=<base>@sha256:<digest> pins the content too.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=serve,monitor,postgres,gcp,traces
# For EXTRAS with plm: PyTorch for the CPU, or for a GPU with CUDA=cu126 or another version that PyTorch has builds for.
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
RUN useradd --uid 10001 --user-group --create-home enzyme
COPY --from=build /opt/venv /opt/venv
# The LD_LIBRARY_PATH is where Google Cloud mounts the driver of a GPU.
ENV PATH=/opt/venv/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/home/enzyme \
    PORT=8080
USER 10001:10001
# All that is written is in here or in /tmp: downloads, language models, embeddings, the SQLite file.
WORKDIR /home/enzyme
VOLUME /home/enzyme
EXPOSE 8080
# Without a proxy, which the service may have been given for the way out.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python3", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"PORT\"]}/readyz', timeout=4)"]
ENTRYPOINT ["enzyme-stability", "serve", "--host", "0.0.0.0"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="enzyme-stability-server" \
      org.opencontainers.image.description="Melting temperature of enzymes from sequence, over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
