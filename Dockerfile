# The image used by cluster.yaml, docs/deploy/rayjob.yaml and serve_configs/rayservice.yaml:
#
#   docker build --tag mets-ray:0.1.0 .
#
# Why not rayproject/ray:2.60.0-py311-gpu? torch's wheels include the CUDA libraries that they were built with, so that
# image would contain CUDA twice, and the versions in its conda environment differ from constraints.txt. Ray's launcher
# and KubeRay need little from an image: bash, wget (probes), ssh and rsync (the head sets up workers), `ray` on PATH
# in a login shell (hence no virtual environment: /etc/profile resets PATH but keeps /usr/local/bin), and uid 1000.
FROM python:3.11-slim-bookworm

# gcc is for torch.compile, which builds its kernels on first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash ca-certificates gcc libc6-dev openssh-client procps rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 ray \
    && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray \
    && install --directory --owner ray --group ray --mode 700 /home/ray/.ray

# On GCP: EXTRAS=quickstart,gcs and LAUNCHER=google-api-python-client. The launcher's package is for the head, whose
# autoscaler calls the cloud.
ARG EXTRAS=quickstart,s3
ARG LAUNCHER=boto3

# NVIDIA's runtime mounts the driver libraries for these capabilities. The cluster decides which GPUs are visible.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

WORKDIR /app

# Dependencies before the code, so that a changed line of code does not download torch again. constraints.txt pins
# torch==2.13.0, for which PyPI serves the CUDA build on x86-64. The build fails if it gets a CPU build instead.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" ${LAUNCHER} \
    && python -c "import torch; assert torch.version.cuda, torch.__version__"

COPY mets_ray mets_ray
COPY jobs jobs
RUN pip install --no-cache-dir --no-deps --force-reinstall .

USER 1000:1000

# To include the LM's weights, if nodes cannot reach the hub: --build-arg TEXT_MODEL=emilyalsentzer/Bio_ClinicalBERT
ARG TEXT_MODEL=
RUN if [ -n "${TEXT_MODEL}" ]; then \
    python -c "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])" "${TEXT_MODEL}"; fi

CMD ["bash"]
