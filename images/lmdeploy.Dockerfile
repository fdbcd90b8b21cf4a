# A bundle on current LMDeploy (0.10 and later), on LMDeploy's own image. `deploytk build` builds the stage `runtime` from a
# context of kilobytes and adds the bundle itself; in a bundle's directory, build all of it with
#   docker build --build-arg LMDEPLOY_VERSION=$(python3 -c 'import json; print(json.load(open("deploytk.json"))["plan"]["lmdeploy"])') -t NAME .
# CUDA is cu12.8 or cu13.0. LMDeploy's image has it in a virtual environment at /opt/py3, and neither user nor entry point.
ARG LMDEPLOY_VERSION=0.18.0
ARG CUDA=cu12.8
ARG BASE_IMAGE=openmmlab/lmdeploy:v${LMDEPLOY_VERSION}-${CUDA}

# What is needed to install, a certificate and wheels among it, stays in this stage. The app has an environment of its own:
# what it needs and what LMDeploy needs never meet.
FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ENV PATH=/opt/py3/bin:$PATH
WORKDIR /build
COPY requirements.txt ca-certificate* wheels* ./
RUN if [ -f ca-certificate.crt ]; then export PIP_CERT=/build/ca-certificate.crt; fi; \
    python3 -m venv /opt/app && \
    /opt/app/bin/pip install --no-cache-dir --no-compile --find-links . -r requirements.txt && \
    /opt/app/bin/pip uninstall --yes --quiet pip

FROM ${BASE_IMAGE} AS runtime
COPY --from=packages /opt/app /opt/app
ENV PATH=/opt/app/bin:/opt/py3/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /bundle
USER 10001:10001
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/ready', timeout=4)"]
ENTRYPOINT ["python", "app.py"]

FROM runtime AS bundle
ENV HF_HUB_OFFLINE=1
COPY . ./
