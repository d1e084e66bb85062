#!/bin/sh
# Prometheus and its Python client: the first thing that goes wrong raises no alert.
#
# A service counts refused calls by reason, and an alert asks increase(...[5m]) > 0. One expects it to
# fire when the first call is refused. But the client shows a labelled counter only once it has counted,
# so the series begins with 1, and increase() counts only what is added after a series' first sample:
# 1, 1, 1 is no increase. The alert fires with the second refusal. If the label was touched when the
# service started (one line, `labels(...)` without `inc()`), the series is there as 0, and it fires.
#
# Needs apt-get (promtool comes from the distribution's package prometheus, unpacked, not installed).
#
# Output seen:
#   prometheus-client 0.26.0, Python 3.11.7
#   promtool, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+deb12u1)
#   shown before the first refusal: nothing; with the label touched: calls_refused_total{reason="full"} 0.0
#   shown after it: calls_refused_total{reason="full"} 1.0
#   one refusal, series begins with it:     alert expected, seen: no alert
#   two refusals, series begins with them:  alert expected, seen: alert at the second
#   one refusal, label touched at the start: alert expected, seen: alert
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prometheus-client==0.26.0
apt-get download -qq prometheus 2>/dev/null || { echo "apt-get has no package prometheus." >&2; exit 2; }
dpkg -x prometheus_*.deb prometheus
promtool=prometheus/usr/bin/promtool

venv/bin/python - <<'END'
import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, generate_latest


def shown(registry: CollectorRegistry) -> str:
    lines = generate_latest(registry).decode().splitlines()
    return "; ".join(x for x in lines if x.startswith("calls_refused_total{")) or "nothing"


plain, touched = CollectorRegistry(), CollectorRegistry()
counter = Counter("calls_refused", "Calls.", ["reason"], registry=plain)
Counter("calls_refused", "Calls.", ["reason"], registry=touched).labels("full")
print(f"prometheus-client {version('prometheus-client')}, Python {platform.python_version()}")
before = shown(plain)
print(f"shown before the first refusal: {before}; with the label touched: {shown(touched)}")
counter.labels("full").inc()
print("shown after it:", shown(plain))
assert before == "nothing" and shown(touched).endswith(" 0.0"), "It behaves differently now."
END
"$promtool" --version | sed -n 1p

# A sample a minute. `_` is a scrape without the series.
cat >alert.yml <<'END'
groups:
  - name: calls
    rules:
      - alert: CallsRefused
        expr: increase(calls_refused_total{reason="full"}[5m]) > 0
END
fires() {  # the series' values; the minute to look at; whether it fires then
    firing="[]"
    [ "$3" = no ] || firing='[{exp_labels: {reason: full}}]'
    cat >case.yml <<END
rule_files: [alert.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series: [{series: 'calls_refused_total{reason="full"}', values: '$1'}]
    alert_rule_test: [{alertname: CallsRefused, eval_time: $2m, exp_alerts: $firing}]
END
    "$promtool" test rules case.yml >/dev/null 2>&1
}
changed() { echo "It behaves differently now: $1" >&2; exit 1; }

for minute in 5 6 7 8 9 10; do
    fires "_ _ _ _ _ 1 1 1 1 1 1" $minute no || changed "one refusal"
done
echo "one refusal, series begins with it:     alert expected, seen: no alert"
fires "_ _ _ _ _ 1 1 2 2 2 2" 6 no || changed "before the second refusal"
fires "_ _ _ _ _ 1 1 2 2 2 2" 8 yes || changed "after the second refusal"
echo "two refusals, series begins with them:  alert expected, seen: alert at the second"
fires "0 0 0 0 0 1 1 1 1 1 1" 6 yes || changed "one refusal, label touched"
echo "one refusal, label touched at the start: alert expected, seen: alert"
