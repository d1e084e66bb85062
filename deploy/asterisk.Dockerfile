# Debian forky's Asterisk. Its configuration comes from outside, filled in by `lab.compose setup`.
ARG TESTING_IMAGE=debian:forky-slim
FROM ${TESTING_IMAGE}
ARG APT_OPTIONS=""
# Older ones have known holes in ARI; a suite that moves back is no base for this.
ARG ASTERISK_AT_LEAST=1:22.10.1
RUN apt-get ${APT_OPTIONS} update \
    && apt-get ${APT_OPTIONS} install -y --no-install-recommends asterisk asterisk-modules \
    && rm -rf /var/lib/apt/lists/* \
    && dpkg --compare-versions "$(dpkg-query -f '${Version}' -W asterisk)" ge "${ASTERISK_AT_LEAST}" \
    && mkdir -p /usr/lib/asterisk \
    && ln -s /usr/lib/*-linux-gnu*/asterisk/modules /usr/lib/asterisk/modules
RUN dpkg-query -f '${source:Package} ${source:Version}\n' -W | sort -u > /usr/share/doc/debian-sources
RUN groupadd --gid 10001 lab \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /asterisk \
        --shell /usr/sbin/nologin lab \
    && install -d -o lab -g lab -m 0750 /asterisk
USER 10001:10001
WORKDIR /asterisk
ENTRYPOINT ["asterisk", "-C", "/asterisk/etc/asterisk.conf"]
CMD ["-f"]
LABEL org.opencontainers.image.title="ari-app-asterisk" \
      org.opencontainers.image.description="Debian's Asterisk for ari-app's lab" \
      org.opencontainers.image.licenses="GPL-2.0-only"
