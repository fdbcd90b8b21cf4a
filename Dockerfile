# deploytk itself, for what needs no GPU: inspect, plan, modernize, package, publish, report. From a wheel that is built:
#   make wheel && docker build -t deploytk:dev .
#   docker run --rm -v "$PWD:/work" deploytk:dev inspect model
# For serving there are the images of `deploytk build`.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS packages
WORKDIR /build
COPY .ci/locks/image.txt dist/deploytk-*.whl ./
RUN python3 -m venv /opt/deploytk && \
    /opt/deploytk/bin/pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: --requirement image.txt && \
    /opt/deploytk/bin/pip install --no-cache-dir --no-compile --no-deps deploytk-*.whl && \
    /opt/deploytk/bin/pip check && \
    /opt/deploytk/bin/pip uninstall --yes --quiet pip

FROM ${BASE_IMAGE}
# git: for OpenXLab
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/deploytk /opt/deploytk
LABEL org.opencontainers.image.title="deploytk" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/deploytk/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["deploytk"]
