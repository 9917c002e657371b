#!/usr/bin/env bash
# All that is to be measured on a GPU, by one command, in at most 8 minutes:
#
#     benchmarks/gpu.sh                  # on a machine with an NVIDIA GPU whose python3 has torch and Triton
#     benchmarks/gpu.sh --dry-run        # the same steps in Triton's interpreter, tiny: no time means anything
#
# Each step has a time limit, a log and a status of its own; what fails keeps no other from running. The folder $OUT (by
# default runs/gpu) gets the logs, summary.md and summary.json, which are rewritten after every step.
#
#     PYTHON=...    the interpreter (python3)
#     BUDGET=...    seconds for everything (465)
#     WHEELS=...    a folder of wheels of the packages that the machine lacks, for one without a network. Otherwise pip
#                   installs what is missing into PYTHON's environment, where its index answers.
#
# What is missing in the end is listed, and skips the training, which alone needs more than torch, Triton and pytest.
#
# Exit status: 0 if every step is done or could not run here, else 1.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

dry=
case "${1:-}" in
    "") ;;
    --dry-run) dry=--dry-run ;;
    *) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac
PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
BUDGET=${BUDGET:-$([ -n "$dry" ] && echo 1800 || echo 465)}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
rm -f "$OUT"/{install,machine,tests,recurrence,networks,training,bfloat16}.log "$OUT"/summary.{md,json}
: >"$work/steps.tsv"

export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export WANDB_MODE=offline MPLBACKEND=Agg TRITON_CACHE_DIR="$work/triton"
device=cuda
if [ -n "$dry" ]; then
    device=cpu
    export TRITON_INTERPRET=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
else
    unset TRITON_INTERPRET
fi
failed=0

# step NAME SECONDS WHAT COMMAND...
step() {
    local name=$1 limit=$2 what=$3 left=$((BUDGET - SECONDS)) started=$SECONDS status
    shift 3
    [ -z "$dry" ] || limit=$((4 * limit)) # who tries it out may have a busy machine
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "not begun: no time is left" >"$OUT/$name.log"
        status=124
    else
        # As Ctrl-C does: pytest then still says what failed.
        timeout --signal=INT --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 </dev/null
        status=$?
    fi
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || failed=1
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - started)) "$limit" "$what" >>"$work/steps.tsv"
    echo "$name: status $status after $((SECONDS - started)) s"
    "$PYTHON" benchmarks/gpu_summary.py "$work" "$OUT" $dry
}

install() {
    local missing
    mapfile -t missing < <("$PYTHON" benchmarks/gpu_machine.py --missing)
    [ "${#missing[@]}" -gt 0 ] || return 0
    echo "missing: ${missing[*]}"
    if [ -n "${WHEELS:-}" ]; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
    else
        timeout 60 "$PYTHON" -m pip install --quiet --retries 0 --timeout 5 "${missing[@]}"
    fi
}

machine() {
    [ -n "$dry" ] || install || echo "not everything could be installed"
    "$PYTHON" benchmarks/gpu_machine.py --device "$device" --output "$work/machine.json"
}
export -f install machine
export PYTHON work device dry

if [ -n "$dry" ]; then
    tiny=(--steps 2 --inputs 2 --units 3 --networks 2 --rounds 1)
    recurrence=("${tiny[@]}" --batch 2 --networks-batch 2)
    networks=("${tiny[@]}" --batch 2)
    tests=(-k "TestPhilox and not edges")
    training=(--epochs 1 --units 4 --draws 1)
else
    recurrence=(--parts)
    networks=()
    # Compiling is most of the time: on several cores where pytest can.
    tests=(-v --durations=10)
    "$PYTHON" -c "import xdist" 2>/dev/null && tests+=(-n "$(($(nproc) < 8 ? $(nproc) : 8))")
    training=()
fi

# By worth: what comes last gets the time that is left. The tests do without conftest.py, whose data need packages, and
# begin with what only a GPU can tell.
kernels=tests/test_nn_triton.py
step machine 90 "versions, card and driver" bash -c machine
step recurrence 130 "the kernels against cuDNN, in float32" \
    "$PYTHON" benchmarks/gpu_recurrence.py --device "$device" --output "$work/recurrence.json" "${recurrence[@]}"
step tests 150 "tests that say more on a GPU" \
    env OMP_NUM_THREADS=2 "$PYTHON" -m pytest -p no:cacheprovider --noconftest -m "gpu and not slow" \
    "$kernels::TestOnGpu" "$kernels" "${tests[@]}"
step networks 90 "64 networks as one against in turn" \
    "$PYTHON" benchmarks/gpu_networks.py --device "$device" --output "$work/networks.json" "${networks[@]}"
step training 100 "a training and its noise curve, on handwritten digits" \
    "$PYTHON" benchmarks/gpu_training.py --device "$device" --output "$work/training.json" --folder "$work/runs" "${training[@]}"
step bfloat16 90 "the kernels against cuDNN, in bfloat16" \
    "$PYTHON" benchmarks/gpu_recurrence.py --device "$device" --kind bfloat16 --output "$work/bfloat16.json" "${recurrence[@]}"

echo "$OUT/summary.md"
exit "$failed"
