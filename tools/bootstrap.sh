# Sourced by the scripts a user runs. `bootstrap EXTRA...` makes .venv once, with pinned versions, and sets PYTHON.
# PYTHON_BIN chooses the interpreter to build from (3.10 to 3.13); LEROBOT_VENV another place for the environment.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${LEROBOT_VENV:-$ROOT/.venv}"
TORCH_VERSION="2.13.0"

say() { printf '\033[1m%s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local name
    for name in ${PYTHON_BIN:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "Python 3.10 to 3.13 with the venv module was not found (on Debian: apt-get install python3 python3-venv); PYTHON_BIN=... names one."
}

# PyPI's torch for Linux is the CUDA build (gigabytes); a machine without an NVIDIA GPU takes the CPU build where it is served.
torch_options() {
    if [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1 && "$PYTHON" -c '
import urllib.request; urllib.request.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=4)' 2>/dev/null; then
        echo "--extra-index-url https://download.pytorch.org/whl/cpu"
    fi
}

bootstrap() {
    PYTHON="$VENV/bin/python"
    local stamp
    stamp="$VENV/.ready-$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum | cut -d' ' -f1)-$(printf '%s-' "$@")"
    [ -f "$stamp" ] || { install_all "$@"; touch "$stamp"; }
    case " $* " in *" sim "*) [ -f "$VENV/.renders" ] || ensure_rendering ;; esac
}

install_all() {
    [ -x "$PYTHON" ] || { say "Making $VENV"; "$(find_python)" -m venv "$VENV"; }
    say "Installing lerobot with extras: $* (once; needs the network)"
    local pip=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile)
    "$PYTHON" -c "import torch" 2>/dev/null || "${pip[@]}" "torch==$TORCH_VERSION" $(torch_options) ||
        die "torch could not be installed; see the message of pip above (HTTPS_PROXY and PIP_INDEX_URL are honoured)."
    "$PYTHON" "$ROOT/tools/requirements.py" "$@" | "${pip[@]}" -c "$ROOT/constraints.txt" -r /dev/stdin ||
        die "The requirements could not be installed; see the message of pip above."
    "${pip[@]}" --no-deps -e "$ROOT"
}

# The simulated arm renders without a screen through EGL or OSMesa; Debian packages the latter as libosmesa6.
renders() { "$PYTHON" -m lerobot.common.envs.koch_sim.gl >/dev/null 2>&1 && touch "$VENV/.renders"; }

ensure_rendering() {
    renders && return 0
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    if command -v apt-get >/dev/null 2>&1; then
        say "Rendering needs OSMesa: installing Debian's libosmesa6"
        { "${sudo[@]}" apt-get install -y -qq libosmesa6 >/dev/null 2>&1 ||
            { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" apt-get install -y -qq libosmesa6; } >/dev/null 2>&1; } || true
    fi
    renders || say "The simulated arm cannot render here. Ask an administrator for: apt-get install libosmesa6 (or a GPU driver with EGL)."
}
