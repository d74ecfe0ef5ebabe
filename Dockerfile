# Two images from the versions of locks/, whose hashes pip checks against PyPI's files:
#
#   docker build --target serve --tag mets-ray-serve:0.1.0 .   # serve_configs/rayservice.yaml; no compiler, no SSH
#   docker build --tag mets-ray:0.1.0 .                        # cluster.yaml, docs/deploy/rayjob.yaml: the above and more
#
# Why not rayproject/ray:2.60.0-py311-gpu? torch's wheels include the CUDA libraries that they were built with, so that
# image would contain CUDA twice, and the versions in its conda environment are not those of locks/. Ray's launcher and
# KubeRay need little from an image: bash, wget (probes), ssh and rsync (the head sets up workers), `ray` on PATH in a
# login shell (hence no virtual environment: /etc/profile resets PATH but keeps /usr/local/bin), and uid 1000.
#
# The digest is what Docker's list of its official images had for this tag on 2026-09-19, with Python 3.11.16:
# github.com/docker-library/repo-info at 40cdaf3, repos/python/remote/3.11-slim-bookworm.md. It was not pulled here. For a
# newer one: `docker buildx imagetools inspect python:3.11-slim-bookworm`.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS serve

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash ca-certificates wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 ray \
    && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray \
    && install --directory --owner ray --group ray --mode 700 /home/ray/.ray

# NVIDIA's runtime mounts the driver libraries for these capabilities. The cluster decides which GPUs are visible.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

WORKDIR /app

# Dependencies before the code, so that a changed line of code does not download torch again. For torch 2.13.0 PyPI serves
# the CUDA build on x86-64; the build fails if it gets a CPU build instead. On GCP: EXTRAS=quickstart,fast,gcs
ARG EXTRAS=quickstart,fast,s3
COPY locks locks
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement locks/base.txt \
      $(echo "${EXTRAS}" | sed -E 's#([^,]+),?#--requirement locks/\1.txt #g') \
    && python -c "import torch; assert torch.version.cuda, torch.__version__"

# Built by the image's own setuptools: pip would fetch another one, whose hash nobody knows.
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY mets_ray mets_ray
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER 1000:1000

# To include the LM's weights, if nodes cannot reach the hub: --build-arg TEXT_MODEL=emilyalsentzer/Bio_ClinicalBERT
# --build-arg TEXT_REVISION=… with the `text.revision` that the bundle was trained with.
ARG TEXT_MODEL=
ARG TEXT_REVISION=
RUN if [ -n "${TEXT_MODEL}" ]; then \
    python -c "import sys; from mets_ray.text.language_model import resolve_text_model; resolve_text_model(sys.argv[1], sys.argv[2] or None)" "${TEXT_MODEL}" "${TEXT_REVISION}"; fi

CMD ["bash"]

FROM serve AS cluster

# gcc is for torch.compile, which builds its kernels on first use.
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev openssh-client procps rsync \
    && rm -rf /var/lib/apt/lists/*

# For the head, whose autoscaler calls the cloud. On GCP: LAUNCHER=gcp
ARG LAUNCHER=aws
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement locks/${LAUNCHER}.txt

COPY jobs jobs
USER 1000:1000
