# The suite in a container, for CPUs:
#     docker build -t labreport .
#     docker run --rm --user "$(id -u)" -v "$PWD/out:/labreport/build" labreport report PROFILE=paper
# and for an NVIDIA GPU, on the official images in ./data, with what was trained kept in ./runs and ./figures:
#     docker build --build-arg TORCH=cuda -t labreport:cuda .
#     docker run --rm --gpus all --ipc=host --user "$(id -u)" -v "$PWD/out:/labreport/build" \
#         -v "$PWD/data:/labreport/data:ro" -v "$PWD/runs:/labreport/runs" -v "$PWD/figures:/labreport/figures" \
#         labreport:cuda report PROFILE=paper DATA=data
# Make the folders before: docker makes missing ones as root. `docker run … labreport test` runs the tests.
FROM python:3.11-slim

# cpu or cuda. CUDA comes with torch's wheels, so that one base image serves both; the driver is the host's.
ARG TORCH=cpu
ENV TORCH=$TORCH NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp PYTHONDONTWRITEBYTECODE=1

# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /labreport

WORKDIR /labreport
COPY . .
# Any --user may write results.
RUN --mount=type=cache,target=/root/.cache/pip PIP_CACHE_DIR=/root/.cache/pip make .venv/.ready \
    && mkdir -p build runs data figures && chmod -R a+rwX build runs data figures

ENTRYPOINT ["make"]
CMD ["report"]
