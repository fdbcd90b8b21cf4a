# A bundle on LMDeploy as pip installs it, on NVIDIA's base image: the way for legacy versions, which still read workspaces (up
# to 0.7.3), and with `deploytk build --variant pip` for current ones. `deploytk build` builds the stage `runtime` from a context
# of kilobytes, with everything locked, and adds the bundle itself; in a bundle's directory, build all of it with
#   docker build --build-arg LMDEPLOY_VERSION=$(python3 -c 'import json; print(json.load(open("deploytk.json"))["plan"]["lmdeploy"])') -t NAME .
# Up to 0.7.3 give BASE_IMAGE=nvidia/cuda:12.4.1-base-ubuntu22.04: they need its Python 3.10. With CUDA 13 there is
# nvidia/cuda:13.0.3-base-ubuntu24.04.
ARG BASE_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04

FROM ${BASE_IMAGE} AS python
ARG APT_MIRROR
RUN python3 -c 'import ensurepip' 2>/dev/null || { \
      if [ -n "${APT_MIRROR}" ]; then \
        sed -i -E "s#https?://[^/ ]+/(debian|ubuntu)#${APT_MIRROR}/\1#" /etc/apt/sources.list /etc/apt/sources.list.d/* || true; \
      fi; \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }

# What is needed to install, a certificate and wheels among it, stays in this stage. It comes from requirements.txt and
# deploytk_app/, which are deploytk's: nothing of the model is used. The app has an environment of its own:
# what it needs and what LMDeploy needs never meet.
FROM python AS packages
ARG LMDEPLOY_VERSION=0.18.0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
WORKDIR /build
COPY requirements.txt deploytk_app/lmdeploy-lock* deploytk_app/ca-certificate* deploytk_app/wheels* ./
RUN if [ -f ca-certificate.crt ]; then export PIP_CERT=/build/ca-certificate.crt; fi; \
    if [ ! -f lmdeploy-lock.txt ]; then printf '%s\n' "lmdeploy==${LMDEPLOY_VERSION}" partial-json-parser > lmdeploy-lock.txt; fi; \
    python3 -m venv /opt/lmdeploy && \
    /opt/lmdeploy/bin/pip install --no-cache-dir --no-compile --find-links . -r lmdeploy-lock.txt && \
    /opt/lmdeploy/bin/pip uninstall --yes --quiet pip && \
    python3 -m venv /opt/app && \
    /opt/app/bin/pip install --no-cache-dir --no-compile --find-links . -r requirements.txt && \
    /opt/app/bin/pip uninstall --yes --quiet pip

FROM python AS runtime
COPY --from=packages /opt/lmdeploy /opt/lmdeploy
COPY --from=packages /opt/app /opt/app
ENV PATH=/opt/app/bin:/opt/lmdeploy/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /bundle
USER 10001:10001
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '7860') + '/ready', timeout=4)"]
ENTRYPOINT ["python", "-I", "-u", "-B", "app.py"]

FROM runtime AS bundle
ENV HF_HUB_OFFLINE=1
COPY . ./
