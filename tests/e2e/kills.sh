#!/usr/bin/env bash
# Two hundred kills at random moments while snapshots are written: the newest complete one loads each time, and the run
# that was killed ends with the bits of one that was not. The plain test suite does the same with a few kills.
#
# Needs Rust. RINGTAPE_TRIALS=N sets how many.
set -euo pipefail
cd "${REPO:-$(dirname "${BASH_SOURCE[0]}")/../..}"
RINGTAPE_TRIALS=${RINGTAPE_TRIALS:-200} cargo test --release --test cli_train kills_leave_a_snapshot_that_loads
