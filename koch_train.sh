#!/usr/bin/env bash
# Train ACT on grasp_dataset/ and show that it works. A first word names another policy (act_dinov2, diffusion, tdmpc,
# vqbet, pi0); every other argument is a flag of lerobot/scripts/train.py, for example
#   bash koch_train.sh act_dinov2
#   bash koch_train.sh --steps=5000 --batch_size=16 --dataset.root=/data/my_grasps
#   bash koch_train.sh --smoke            20 steps, save, resume, predict: does everything work here?
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/tools/koch_train.sh"
policy=act
case "${1:-}" in
    "" | -*) ;;
    *) policy="$1" && shift ;;
esac
koch_train "$policy" "$@"
