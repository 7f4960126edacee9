# Operator and model gateway, which share an image: only their own packages from the lock.
#   docker build -f deploy/images/operator.Dockerfile -t edgewright-operator:0.1.0 .
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
RUN python3 -m pip install --no-cache-dir "uv>=0.13" && python3 -m venv --without-pip /opt/edgewright
WORKDIR /src
COPY requirements.lock ./
COPY contract ./contract
COPY operator ./operator
# The lock holds every part of the project; as constraints, its versions and hashes count for those that the operator needs.
RUN sed '/^-e /d' requirements.lock > locked.txt \
 && uv pip install --python /opt/edgewright/bin/python3 --no-cache --constraint locked.txt ./contract ./operator \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/edgewright/lib

FROM ${BASE_IMAGE}
COPY --from=build /opt/edgewright /opt/edgewright
ENV PATH=/opt/edgewright/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["edgewright-operator"]
