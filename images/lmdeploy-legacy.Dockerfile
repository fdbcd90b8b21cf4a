# A bundle on LMDeploy up to 0.9.2, which still reads workspaces (up to 0.7.3). Build it in the bundle's directory:
#   docker build --build-arg LMDEPLOY_VERSION=$(python3 -c 'import json; print(json.load(open("deploytk.json"))["plan"]["lmdeploy"])') -t NAME .
# Images up to 0.5.2 have no CUDA suffix: there give BASE_IMAGE=openmmlab/lmdeploy:v0.4.2 whole.
ARG LMDEPLOY_VERSION=0.7.3
ARG CUDA=cu12
ARG BASE_IMAGE=openmmlab/lmdeploy:v${LMDEPLOY_VERSION}-${CUDA}
FROM ${BASE_IMAGE}

ARG PIP_INDEX_URL
ENV PATH=/opt/py3/bin:$PATH \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /bundle
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt
COPY . ./
USER 10001:10001
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["python", "app.py"]
