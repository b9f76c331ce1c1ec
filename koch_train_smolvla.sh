#!/usr/bin/env bash
# Train SmolVLA on grasp_dataset/ and show that it works. Every argument is a flag of lerobot/scripts/train.py, for example
#   bash koch_train_smolvla.sh --steps=5000 --batch_size=16 --dataset.root=/data/my_grasps
#   bash koch_train_smolvla.sh --smoke            20 steps, save, resume, predict: does everything work here?
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/tools/koch_train.sh"
koch_train smolvla "$@"
