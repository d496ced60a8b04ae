#!/usr/bin/env bash
# Everything that wants a GPU, in one call: the tests of its arithmetic, the speed, and nanoGPT's own training run.
#
#   benchmarks/gpu.sh OUT TEXT [flags of training.train …]
#
# OUT gets a log of each part and the trained checkpoint, its weights in pieces (join them with cat).
set -euo pipefail
out=$1 text=$2
shift 2
mkdir -p "$out"

python -m pytest tests/model tests/training 2>&1 | tee "$out/tests.log"
python -m benchmarks.decode 2>&1 | tee "$out/decode.log"
work=$(mktemp -d)
python -m training.prepare --input_file="$text" --out_dir="$work/data"
python -m training.train --data="$work/data" --out_dir="$work/checkpoint" "$@" >"$out/train.log" 2>&1
python -m training.evaluate --checkpoint="$work/checkpoint" --data="$work/data" 2>/dev/null | tee "$out/evaluate.log"
cp "$work"/checkpoint/*.json "$out"
split --bytes=12M "$work/checkpoint/model.safetensors" "$out/model.safetensors."
rm -r "$work"
