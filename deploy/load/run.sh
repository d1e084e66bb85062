#!/bin/sh
# Places LOAD_CALLS calls, LOAD_AT_ONCE at most at one time, LOAD_PER_SECOND new ones in a second, of
# LOAD_SECONDS each. Prints what became of them; exit code 1 when one failed.
set -u
own=$(hostname -i | cut -d ' ' -f 1)
cd /tmp
sipp "${LOAD_TARGET:-asterisk:5060}" -s "${LOAD_NUMBER:-102}" -sf /usr/local/share/sipp/call.xml \
    -inf /load/accounts.csv -i "$own" -mi "$own" -nostdin \
    -m "${LOAD_CALLS:-20}" -l "${LOAD_AT_ONCE:-10}" -r "${LOAD_PER_SECOND:-2}" \
    -d "$((${LOAD_SECONDS:-20} * 1000))" -recv_timeout 15000 \
    -trace_stat -stf /tmp/calls.csv -fd 5 -trace_err -error_file /tmp/errors.log \
    >/tmp/screen.log 2>&1
code=$?
# The last line of SIPp's statistics; columns go by their names.
awk -F ';' '
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { line = $0 }
    END {
        split(line, value, ";")
        printf "%s calls, %s went well, %s failed; answered after %s (hour:minute:second:microsecond) on average\n",
            value[column["TotalCallCreated"]], value[column["SuccessfulCall(C)"]],
            value[column["FailedCall(C)"]], value[column["ResponseTimeanswer(C)"]]
    }' /tmp/calls.csv
if [ "$code" != 0 ]; then
    tail -n 20 /tmp/errors.log /tmp/screen.log 2>/dev/null
    exit 1
fi
