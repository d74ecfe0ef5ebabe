# The image that cluster.yaml, docs/deploy/rayjob.yaml and serve_configs/rayservice.yaml name:
#
#   docker build --tag mets-ray:0.1.0 .
#
# Why not rayproject/ray:2.60.0-py311-gpu: torch's wheels bring the CUDA libraries that they were built with, so that image
# would hold CUDA twice, and its conda environment has versions of its own beside constraints.txt. What Ray's launcher and
# KubeRay need of an image is short: bash, wget (probes), ssh and rsync (the head sets up workers), `ray` on the PATH of
# a login shell (hence no virtual environment: /etc/profile resets PATH, and keeps /usr/local/bin), and uid 1000.
FROM python:3.11-slim-bookworm

# gcc is for torch.compile, which builds its kernels when they are first used.
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

# NVIDIA's runtime gives the container the driver's libraries for these; which GPUs is the cluster's to say.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

WORKDIR /app

# Dependencies before the code, so that a changed line of code does not download torch again. constraints.txt says
# torch==2.13.0, which PyPI answers with its CUDA build on x86-64; a CPU build must not go unnoticed.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" ${LAUNCHER} \
    && python -c "import torch; assert torch.version.cuda, torch.__version__"

COPY mets_ray mets_ray
COPY jobs jobs
RUN pip install --no-cache-dir --no-deps --force-reinstall .

USER 1000:1000

# The LM's weights where nodes cannot reach the hub: --build-arg TEXT_MODEL=emilyalsentzer/Bio_ClinicalBERT
ARG TEXT_MODEL=
RUN if [ -n "${TEXT_MODEL}" ]; then \
    python -c "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])" "${TEXT_MODEL}"; fi

CMD ["bash"]
