# One image for every stage and the Kubeflow components, a smaller one for serving.
#   docker build -t elcrec:0.1.0 .                                           CUDA, as the default torch wheel brings it
#   docker build --target serve -t elcrec-serve:0.1.0 .                      the server
#   docker build --target spark -t elcrec-spark:0.1.0 .                      with PySpark and Java, for engine.kind spark
#   docker build --build-arg TORCH_INDEX=<index of torch's CPU wheels> .     CPU only, several GB smaller
# A folder of wheels in an image of its own (build argument WHEELS) is preferred over the index.
ARG WHEELS=scratch
# The base image by its name; a release names its digest too (docs/deploy.md).
ARG BASE=python:3.11-slim-bookworm
FROM ${WHEELS} AS wheels

FROM ${BASE} AS torch
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT=120 PIP_RETRIES=8 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv --without-pip /opt/venv

# The dependencies alone, torch first: editing the sources or a tool's setting downloads nothing again. Each image has
# its own lock file, and nothing is installed whose hash is not in it.
COPY requirements-torch.lock requirements-torch-cpu.lock ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    if [ -n "$TORCH_INDEX" ] || ls /wheels/torch-*+cpu* >/dev/null 2>&1; then build=-cpu; else build=; fi && \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --require-hashes --find-links /wheels \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements-torch$build.lock
# What no stage imports: headers and test suites.
RUN cd /opt/venv/lib/python3*/site-packages && \
    find torch/bin -type f ! -name torch_shm_manager -delete && rm -rf torch/include torch/test

# What builds this package's own wheel.
COPY requirements-build.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/build && /opt/build/bin/python -m pip install --require-hashes -r requirements-build.lock

FROM torch AS train-builder
COPY requirements-train.lock ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --require-hashes --find-links /wheels \
    -r requirements-train.lock
# Test suites, headers, and the type checker that feast brings along.
RUN cd /opt/venv/lib/python3*/site-packages && \
    find . -type d -name tests -prune -exec rm -r {} + && \
    rm -rf pyarrow/include && \
    python3 -m pip --python /opt/venv/bin/python uninstall --yes mypy
COPY pyproject.toml README.md params.yaml ./
COPY presets ./presets
COPY features ./features
COPY src ./src
COPY components ./components
COPY pipelines ./pipelines
RUN /opt/build/bin/hatchling build -t wheel -d /build/wheel && \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --no-index /build/wheel/*.whl

FROM torch AS serve-builder
# Set to anything, the server can search by an approximate index: 65 MB more.
ARG INDEX=
COPY requirements-serve.lock requirements-index.lock ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --require-hashes --find-links /wheels \
    -r requirements-serve.lock ${INDEX:+-r requirements-index.lock}
# MLflow brings along what trains and draws, PyTorch a compiler, Arrow a network protocol: a server has no use for them.
RUN cd /opt/venv/lib/python3*/site-packages && \
    python3 -m pip --python /opt/venv/bin/python uninstall --yes \
    mypy setuptools sympy mpmath networkx scikit-learn scipy matplotlib pillow fonttools kiwisolver contourpy && \
    find . -type d -name tests -prune -exec rm -r {} + && \
    rm -rf feast/ui mlflow/server/js pyarrow/include pyarrow/*flight* torch/_inductor numpy/distutils numpy/f2py \
    torch/testing/_internal/distributed torch/testing/_internal/opinfo torch/testing/_internal/common_methods_invocations.py
COPY pyproject.toml README.md params.yaml ./
COPY presets ./presets
COPY features ./features
COPY src ./src
RUN mkdir components pipelines && /opt/build/bin/hatchling build -t wheel -d /build/wheel && \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --no-index /build/wheel/*.whl
# Bytecode of what a server imports, not of all that is installed.
RUN find /opt/venv -name '*.pyc' -delete && /opt/venv/bin/python -c "import elcrec.serving.server, \
elcrec.adapters.feast_store, elcrec.adapters.model_registry, elcrec.stages.recommend, elcrec.stages.events, \
elcrec.stages.stream, elcrec.adapters.redis_stream, elcrec.adapters.kafka_stream, \
opentelemetry.sdk.trace.export, opentelemetry.exporter.otlp.proto.http.trace_exporter, \
feast.infra.registry.sql, feast.infra.online_stores.redis, mlflow.store.model_registry.sqlalchemy_store"

FROM ${BASE} AS runtime
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
WORKDIR /app
COPY params.yaml ./
COPY presets ./presets
COPY features ./features
RUN chmod g+rwX /app

# Serving alone, without what trains: smaller, and less that could be attacked.
FROM runtime AS serve
COPY --from=serve-builder /opt/venv /opt/venv
# Last, so that a new commit with the same sources changes no layer but this one.
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
ENV ELCREC_GIT_REVISION=${REVISION}
USER 10001
EXPOSE 8080
CMD ["elcrec", "serve", "--host", "0.0.0.0", "--port", "8080"]

# Every stage with PySpark: the steps validate and sequences, a driver of Spark and its executors.
FROM train-builder AS spark-builder
COPY requirements-spark.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --python /opt/venv/bin/python install --no-deps --require-hashes -r requirements-spark.lock

FROM runtime AS spark
# Java registers its manual page, in a folder that a slim image lacks.
RUN mkdir -p /usr/share/man/man1 && apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends openjdk-17-jre-headless tini && \
    rm -rf /var/lib/apt/lists/*
COPY --from=spark-builder /opt/venv /opt/venv
COPY --chmod=755 deploy/spark/entrypoint.sh /opt/entrypoint.sh
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
ENV ELCREC_GIT_REVISION=${REVISION} \
    SPARK_HOME=/opt/venv/lib/python3.11/site-packages/pyspark
USER 10001
ENTRYPOINT ["/opt/entrypoint.sh"]
CMD ["elcrec", "--help"]

# Every stage and component; the target of a plain build.
FROM runtime AS train
COPY --from=train-builder /opt/venv /opt/venv
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
ENV ELCREC_GIT_REVISION=${REVISION}
USER 10001
CMD ["elcrec", "--help"]
