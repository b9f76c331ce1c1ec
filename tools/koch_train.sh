# Sourced by koch_train.sh and koch_train_smolvla.sh: sets up, chooses what fits this machine, trains, evaluates, reports.

source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

has_flag() { # has_flag NAME ARGUMENTS...: whether --NAME=... or --NAME is among the arguments
    local name="$1" word
    shift
    for word in "$@"; do
        case "$word" in "--$name" | "--$name="*) return 0 ;; esac
    done
    return 1
}

has_gpu() { "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; }

# koch_train POLICY ARGUMENTS...: POLICY is a word of --policy.type; every argument is a flag of lerobot/scripts/train.py.
koch_train() {
    local policy="$1" job date out
    shift
    [ -f "$ROOT/lerobot/configs/presets/${policy}_mini.json" ] ||
        die "There is no policy '$policy': expected one of $(cd "$ROOT/lerobot/configs/presets" && ls | sed -n 's/_mini.json//p' | xargs)."
    bootstrap smolvla sim
    local flags=("$@")
    if ! has_flag help "$@" && ! has_flag policy.path "$@" && ! has_flag policy.type "$@" &&
        ! has_flag preset "$@" && ! has_flag config_path "$@" && ! has_flag resume "$@"; then
        choose_policy "$policy"
        flags=("${chosen[@]}" "$@")
    fi
    has_flag dataset.root "$@" || has_flag dataset.repo_id "$@" || has_flag config_path "$@" || has_flag resume "$@" ||
        flags+=("--dataset.root=$ROOT/grasp_dataset")
    job="koch_$policy"
    date="$(date +%Y-%m-%d_%H-%M-%S)"
    out="$ROOT/outputs/train/$job/$date"
    has_flag output_dir "$@" || has_flag config_path "$@" || flags+=("--output_dir=$out")
    if ! has_flag config_path "$@" && ! has_flag resume "$@"; then # else the run has its own
        has_flag job_name "$@" || flags+=("--job_name=$job")
        has_flag dataset.eval_split "$@" || flags+=("--dataset.eval_split=0.04")
        has_flag env.type "$@" || flags+=("--env.type=koch" "--eval.use_async_envs=true")
    fi
    mkdir -p "$ROOT/logs"
    local log="$ROOT/logs/${job}_$date.log"
    say "Log: $log"
    "$PYTHON" "$ROOT/lerobot/scripts/train.py" "${flags[@]}" 2>&1 | tee "$log"
}

choose_policy() { # sets the array `chosen`
    if ! has_gpu; then
        chosen=("--preset=${1}_mini")
        say "No GPU: training the small ${1}_mini (--policy.path=... trains a checkpoint instead)."
    elif [ "$1" = smolvla ]; then
        "$PYTHON" -c 'from lerobot.common.utils.hub import find_file; find_file("lerobot/smolvla_base", "config.json")' 2>/dev/null ||
            die "lerobot/smolvla_base is neither in the cache (HF_HOME) nor reachable (HF_ENDPOINT names a mirror). Give a local copy by --policy.path=FOLDER, or train the small one from zero: --preset=smolvla_mini."
        chosen=("--policy.path=lerobot/smolvla_base" "--batch_size=64" "--steps=20000" "--policy.use_amp=true" "--policy.frozen_features=auto")
    elif [ "$1" = act ]; then
        chosen=("--policy.type=act")
    elif [ "$1" = act_dinov2 ]; then
        chosen=("--policy.type=act_dinov2" "--policy.frozen_features=auto")
    else
        chosen=("--preset=${1}_mini")
    fi
}
