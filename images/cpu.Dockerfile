# A bundle on the CPU engine, for previews. Build it in the bundle's directory:   docker build -t NAME .
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}

ARG DEPLOYTK=deploytk[cpu,ui]
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /bundle
RUN python -m pip install --no-cache-dir "${DEPLOYTK}"
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt
COPY . ./
USER 10001:10001
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["python", "app.py"]
