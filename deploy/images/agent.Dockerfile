# The edge agent: only its own packages from the lock, without what ONNX Runtime and NumPy carry for other purposes.
#   docker build -f deploy/images/agent.Dockerfile -t edgewright-agent:0.1.0 .
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
RUN python3 -m pip install --no-cache-dir "uv>=0.13" && python3 -m venv --without-pip /opt/edgewright
WORKDIR /src
COPY requirements.lock ./
COPY contract ./contract
COPY edge-agent ./edge-agent
# The lock holds every part of the project; as constraints, its versions and hashes count for those that the agent needs.
RUN sed '/^-e /d' requirements.lock > locked.txt \
 && uv pip install --python /opt/edgewright/bin/python3 --no-cache --constraint locked.txt ./contract ./edge-agent \
 && cd /opt/edgewright/lib/python3*/site-packages \
 && rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets \
 && find numpy -type d -name tests -prune -exec rm -rf {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash .

FROM ${BASE_IMAGE}
COPY --from=build /opt/edgewright /opt/edgewright
ENV PATH=/opt/edgewright/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["edgewright-agent", "run"]
