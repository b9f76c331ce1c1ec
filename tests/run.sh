#!/usr/bin/env bash
# Run the tests (arguments go to pytest: `bash tests/run.sh -m slow`, `bash tests/run.sh tests/policies`).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tools/bootstrap.sh"
bootstrap smolvla peft sim koch remote tensorboard test
cd "$ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
unset PYTHONDONTWRITEBYTECODE # the tests start many processes, and each would compile every module it imports
"$PYTHON" -m pytest -q "$@"
