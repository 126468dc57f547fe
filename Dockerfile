# One image, one entry point, many commands: api, worker, migrate, …  `--target components` is the image of pipeline steps.
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir 'uv==0.13.*'
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/kfp-triggers
WORKDIR /src
# The dependencies first: they change less often than the code.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project
COPY service service
COPY triggers triggers
COPY pipelines pipelines
RUN uv sync --frozen --no-dev --no-editable

FROM build AS build-components
RUN uv sync --frozen --no-dev --no-editable --extra components

FROM python:3.11-slim AS base
RUN useradd --uid 10001 --create-home kfp-triggers \
 && apt-get update && apt-get install --yes --no-install-recommends git tini && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/kfp-triggers/bin:$PATH KFP_TRIGGERS_HOME=/home/kfp-triggers KFP_TRIGGERS_API__HOST=0.0.0.0
USER 10001
WORKDIR /home/kfp-triggers

FROM base AS components
COPY --from=build-components /opt/kfp-triggers /opt/kfp-triggers

FROM base AS service
COPY --from=build /opt/kfp-triggers /opt/kfp-triggers
EXPOSE 8080
# tini reaps what a local run leaves behind; nothing else in a container does.
ENTRYPOINT ["tini", "--", "kfp-triggers"]
CMD ["api"]
