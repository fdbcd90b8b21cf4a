#!/bin/sh
# Starts a node of Ray 2.60.0, which ends with this process; more options of `ray start` may follow.
set -eu
: "${NODE_IP:?the address of this node}"
: "${RAY_AUTH_TOKEN_PATH:?a file with the token of the cluster, mode 0600}"
export RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_health_check_period_ms="${RAY_health_check_period_ms:-1000}"
export RAY_health_check_timeout_ms="${RAY_health_check_timeout_ms:-1000}"
export RAY_health_check_failure_threshold="${RAY_health_check_failure_threshold:-3}"
export RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S="${RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S:-2}"
export RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S="${RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S:-10}"
exec ray start --head --node-ip-address="$NODE_IP" --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats --block "$@"
