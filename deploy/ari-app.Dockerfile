# The service, in two sizes: `serve` holds what production needs and nothing else, `lab` adds the
# practice agent, the automatic caller and a voice for both. Debian's Python, and packages from lock
# files with hashes. docs/docker.md describes the build arguments and secrets.
ARG STABLE_IMAGE=debian:trixie-slim

FROM ${STABLE_IMAGE} AS python
ARG APT_OPTIONS=""
RUN apt-get ${APT_OPTIONS} update \
    && apt-get ${APT_OPTIONS} install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 ari-app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin ari-app
ENV PATH=/opt/ari-app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM python AS build
ARG APT_OPTIONS=""
RUN apt-get ${APT_OPTIONS} update \
    && apt-get ${APT_OPTIONS} install -y --no-install-recommends python3-venv
WORKDIR /src
COPY deploy/pip.sh deploy/build.lock deploy/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip_conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /build \
    && python3 -m venv --without-pip /opt/ari-app \
    && sh deploy/pip.sh install --require-hashes -r deploy/build.lock

FROM build AS lab-wheel
COPY LICENSE ./
COPY asterisk-conf asterisk-conf
COPY benchmarks benchmarks
COPY lab lab
RUN sh deploy/pip.sh wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel ./lab

FROM build AS serve-packages
COPY deploy/serve.lock deploy/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip_conf \
    --mount=type=cache,target=/root/.cache/pip \
    sh deploy/pip.sh --python /opt/ari-app install --require-hashes -r deploy/serve.lock

# What every frame goes through is compiled, for which its types have to be known.
FROM serve-packages AS wheel
ARG APT_OPTIONS=""
RUN apt-get ${APT_OPTIONS} install -y --no-install-recommends gcc libc6-dev python3-dev
COPY pyproject.toml README.md LICENSE THIRD-PARTY.md ./
COPY ari_app ari_app
COPY audiosocket audiosocket
COPY linekit linekit
COPY scripts/__init__.py scripts/compiled.py scripts/wheel_hook.py scripts/
RUN PYTHONPATH=/src:$(echo /build/lib/python3*/site-packages) /opt/ari-app/bin/python -m scripts.compiled --require \
    && sh deploy/pip.sh wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheel .

FROM serve-packages AS serve-all
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    sh deploy/pip.sh --python /opt/ari-app install --no-deps --no-index /wheel/*.whl

FROM serve-packages AS lab-packages
COPY deploy/lab.lock deploy/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip_conf \
    --mount=type=cache,target=/root/.cache/pip \
    sh deploy/pip.sh --python /opt/ari-app install --require-hashes -r deploy/lab.lock

FROM lab-packages AS lab-all
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,from=lab-wheel,source=/wheel,target=/lab-wheel \
    sh deploy/pip.sh --python /opt/ari-app install --no-deps --no-index /wheel/*.whl /lab-wheel/*.whl

FROM python AS lab
ARG APT_OPTIONS=""
RUN apt-get ${APT_OPTIONS} update \
    && apt-get ${APT_OPTIONS} install -y --no-install-recommends espeak-ng \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o ari-app -g ari-app -m 0750 /lab /service /agent /caller /asterisk /phone /load
RUN dpkg-query -f '${source:Package} ${source:Version}\n' -W | sort -u > /usr/share/doc/debian-sources
COPY --from=lab-all /opt/ari-app /opt/ari-app
COPY deploy/health.py /usr/local/lib/health.py
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "lab.compose"]
LABEL org.opencontainers.image.title="ari-app-lab" \
      org.opencontainers.image.description="Practice agent and automatic caller of ari-app's lab" \
      org.opencontainers.image.licenses="MIT"

FROM python AS serve
RUN install -d -o ari-app -g ari-app -m 0750 /recordings /calls
RUN dpkg-query -f '${source:Package} ${source:Version}\n' -W | sort -u > /usr/share/doc/debian-sources
COPY --from=serve-all /opt/ari-app /opt/ari-app
COPY deploy/health.py /usr/local/lib/health.py
USER 10001:10001
# What the settings name without a path, such as calls.db, is there.
WORKDIR /calls
ENTRYPOINT ["ari-app"]
CMD ["serve"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "/usr/local/lib/health.py"]
LABEL org.opencontainers.image.title="ari-app" \
      org.opencontainers.image.description="Voice bridge between Asterisk and ElevenLabs agents" \
      org.opencontainers.image.licenses="MIT"
