# One image, one entry point, many commands: api, worker, migrate, … The image of pipeline steps is deploy/image's.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check 'uv==0.13.*'
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 UV_PROJECT_ENVIRONMENT=/opt/kfp-triggers
WORKDIR /src
# The dependencies first: they change less often than the code.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project
COPY service service
COPY triggers triggers
COPY pipelines pipelines
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-editable

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --create-home --home-dir /var/lib/kfp-triggers kfp-triggers \
 && apt-get update && apt-get install --yes --no-install-recommends git tini && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/kfp-triggers/bin:$PATH KFP_TRIGGERS_HOME=/var/lib/kfp-triggers KFP_TRIGGERS_API__HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/kfp-triggers
COPY --from=build /opt/kfp-triggers /opt/kfp-triggers
EXPOSE 8080
# tini reaps what a local run leaves behind; nothing else in a container does.
ENTRYPOINT ["tini", "--", "kfp-triggers"]
CMD ["api"]
