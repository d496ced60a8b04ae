#!/usr/bin/env bash
# Everything that wants a GPU, in one call: the tests of its arithmetic, the speed, a server, and a training run.
#
#   benchmarks/gpu.sh OUT [TEXT [flags of training.train …]]
#
# OUT gets a log of each part and the trained checkpoint, its weights in pieces (join them with cat). Without TEXT,
# nothing is trained; benchmarks/ensemble.py trains many, and calls this with the time that it has left.
set -uo pipefail
out=$1
shift
mkdir -p "$out"
failed=0
part() { # NAME COMMAND…: run it, keep what it prints, go on if it fails
  local name=$1 began=$SECONDS
  shift
  "$@" 2>&1 | tee "$out/$name.log" || { failed=1; echo "$name: failed"; }
  echo "$name: $((SECONDS - began)) s"
}

part tests python -m pytest tests/model/backends/cuda tests/model/backends/test_eager.py
part decode python -m benchmarks.decode
part serve python -m benchmarks.serve --clients=128
if [ $# -gt 0 ]; then
  text=$1
  shift
  work=$(mktemp -d)
  part prepare python -m training.prepare --input_file="$text" --out_dir="$work/data"
  part train python -m training.train --data="$work/data" --out_dir="$work/checkpoint" "$@"
  part evaluate python -m training.evaluate --checkpoint="$work/checkpoint" --data="$work/data" --rolling=True
  cp "$work"/checkpoint/*.json "$out" && split --bytes=12M "$work/checkpoint/model.safetensors" "$out/model.safetensors."
  rm -r "$work"
fi
exit $failed
