# One image for every stage, the Kubeflow components and serving.
#   docker build -t elcrec:0.1.0 .                                           CUDA, as the default torch wheel brings it
#   docker build --build-arg TORCH_INDEX=<index of torch's CPU wheels> .     CPU only, several GB smaller
# A folder of wheels in an image of its own (build argument WHEELS) is preferred over the index.
ARG WHEELS=scratch
FROM ${WHEELS} AS wheels

FROM python:3.11-slim-bookworm AS requirements
COPY pyproject.toml ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = 'validate', 'report', 'registry', 'features', 'dvc', 'pipeline'; \
rest = [r for e in extras for r in p['optional-dependencies'][e]]; \
print(*p['dependencies'], *rest, sep='\n')" > /requirements.in && grep '^torch' /requirements.in > /torch.in

FROM python:3.11-slim-bookworm AS builder
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT=120 PIP_RETRIES=8 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv --without-pip /opt/venv

# The dependencies alone, torch first: editing the sources, a tool's setting or one pin downloads nothing again.
COPY requirements.lock ./
COPY --from=requirements /requirements.in /torch.in ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --find-links /wheels \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c requirements.lock -r torch.in
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --find-links /wheels \
    -c requirements.lock -r requirements.in
# What no stage imports: headers, test suites, and the type checker that feast brings along.
RUN cd /opt/venv/lib/python3*/site-packages && \
    find torch/bin -type f ! -name torch_shm_manager -delete && \
    find pandas scipy sklearn sympy matplotlib pyarrow ibis dask networkx -type d -name tests -prune -exec rm -r {} + && \
    rm -rf torch/include torch/test pyarrow/include && \
    python3 -m pip --python /opt/venv/bin/python uninstall --yes mypy

COPY pyproject.toml README.md ./
COPY src ./src
COPY components ./components
COPY pipelines ./pipelines
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --no-deps .

FROM python:3.11-slim-bookworm AS train
LABEL org.opencontainers.image.title="elcrec" \
      org.opencontainers.image.description="ELCRec: intent-aware sequential recommendation, from a raw log to top-k" \
      org.opencontainers.image.licenses="Apache-2.0"
# A cluster may run the image as any user id: its home is /tmp, and USER stands in for a missing passwd entry.
# DVC reads repositories with its own git library; without the git program GitPython must not complain.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=elcrec \
    PYTHONUNBUFFERED=1 \
    GIT_PYTHON_REFRESH=quiet \
    ELCREC_FEATURES=/app/features
RUN useradd --system --uid 10001 --gid 0 --home-dir /tmp --no-create-home elcrec
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY params.yaml ./
COPY presets ./presets
COPY features ./features
RUN chmod g+rwX /app
# Last, so that a new commit with the same sources changes no layer but this one.
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
ENV ELCREC_GIT_REVISION=${REVISION}
USER 10001
CMD ["elcrec", "--help"]

FROM train AS serve
