# A bundle on the CPU engine, for previews. `deploytk build` builds the stage `runtime` from a context of kilobytes and adds
# the bundle itself; in a bundle's directory, `docker build -t NAME .` builds all of it.
# Any Debian or Ubuntu will do as BASE_IMAGE; Python is added where it is missing.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS python
ARG APT_MIRROR
RUN python3 -c 'import ensurepip' 2>/dev/null || { \
      if [ -n "${APT_MIRROR}" ]; then \
        sed -i -E "s#https?://[^/ ]+/(debian|ubuntu)#${APT_MIRROR}/\1#" /etc/apt/sources.list /etc/apt/sources.list.d/* || true; \
      fi; \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }

# What is needed to install, a certificate and wheels among it, stays in this stage. It comes from requirements.txt and
# deploytk_app/, which are deploytk's: nothing of the model is used.
FROM python AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG DEPLOYTK=deploytk[cpu]
WORKDIR /build
COPY requirements.txt deploytk_app/ca-certificate* deploytk_app/wheels* ./
RUN if [ -f ca-certificate.crt ]; then export PIP_CERT=/build/ca-certificate.crt; fi; \
    python3 -m venv /opt/app && /opt/app/bin/pip install --no-cache-dir --no-compile --find-links . -r requirements.txt && \
    /opt/app/bin/pip install --no-cache-dir --no-compile --find-links . ${TORCH_INDEX_URL:+--extra-index-url ${TORCH_INDEX_URL}} "${TORCH}"
COPY requirements.txt deploytk_app/source* ./
RUN if [ -f ca-certificate.crt ]; then export PIP_CERT=/build/ca-certificate.crt; fi; \
    if [ -d deploytk ]; then cp -r deploytk "$(echo /opt/app/lib/python3*/site-packages)"; \
    else /opt/app/bin/pip install --no-cache-dir --no-compile "${DEPLOYTK}"; fi && \
    /opt/app/bin/pip uninstall --yes --quiet pip

FROM python AS runtime
COPY --from=packages /opt/app /opt/app
ENV PATH=/opt/app/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /bundle
USER 10001:10001
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '7860') + '/ready', timeout=4)"]
ENTRYPOINT ["python", "-I", "-u", "-B", "app.py"]

FROM runtime AS bundle
ENV HF_HUB_OFFLINE=1
COPY . ./
