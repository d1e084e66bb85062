#!/bin/sh
# pip of the build stage. A package index or certificates of one's own come as build secrets, so that
# they stay out of the image and its history.
set -eu
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca
[ ! -s /run/secrets/pip_conf ] || export PIP_CONFIG_FILE=/run/secrets/pip_conf
export PIP_ROOT_USER_ACTION=ignore
exec /build/bin/pip --disable-pip-version-check --quiet "$@"
