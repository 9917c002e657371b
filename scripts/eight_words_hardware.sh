#!/usr/bin/env bash
# The tables of docs/designers.md: LSTMs on the eight real words, trained conventionally, under Gaussian noise and under the
# hardware itself, each evaluated on every hardware.
#
#   scripts/eight_words_hardware.sh         needs the clips in data/speech_commands_8 (data/README.md)
#   JOBS=2 SEEDS="1 2 3" EPOCHS=40 CHIPS=10 scripts/eight_words_hardware.sh
#
# What is done is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/training_runs.sh

JOBS=${JOBS:-2} SEEDS=${SEEDS:-1 2 3} EPOCHS=${EPOCHS:-40}
export CHIPS=${CHIPS:-10}

PCM="--model.noise.hardware pcm_8bit --model.noise.strength weight.1.sigma --annealing.sigma 1"
RERAM="--model.noise.hardware reram_wan2022 --model.noise.strength weight.sigma --annealing.sigma 1"
HWA="--model.noise.hardware pcm_hwa --model.noise.strength weight.1.sigma --annealing.sigma 0.03"

for seed in $SEEDS; do
    sed "s/SEED/$seed/; s/\$/ --trainer.max_epochs $EPOCHS/" <<TRAININGS
eight_words_lstm_conventional hardware/conventional SEED
eight_words_lstm_dni hardware/pcm SEED $PCM
eight_words_lstm_dni hardware/gaussian SEED
eight_words_lstm_dni hardware/reram SEED $RERAM
eight_words_lstm_dni hardware/pcm_drawn SEED $PCM --annealing.drawn batch
eight_words_lstm_dni hardware/pcm_hwa SEED $HWA
TRAININGS
done | xargs -P "$JOBS" -L 1 bash -c 'run "$@"' _

# Each run on each hardware; what was measured lies in the run's folder and is not measured again.
on_hardware() {
    local run=$1 checkpoint="$1/checkpoints/last.ckpt"
    shift
    $ASR_DNI evaluate "$checkpoint" --only curve --draws 1 --chips "$CHIPS" --figures false "$@" >>"$run/evaluations.txt" 2>&1 ||
        { echo "$run: evaluation failed, see evaluations.txt" >&2; return 1; }
}
evaluations() {
    echo "$1: evaluated from $(date +%H:%M)"
    on_hardware "$1" --hardware pcm_8bit --strengths 1,86400,31536000
    on_hardware "$1" --hardware reram_wan2022 --strengths 1,86400,172800
    on_hardware "$1" --hardware standard_hwa --strengths 86400
    case $1 in */pcm_drawn/* | */pcm_hwa/*) return ;; esac
    on_hardware "$1" --hardware pcm,pcm_compensated,hermes --strengths 1,86400,31536000
    on_hardware "$1" --hardware noisy_weights --strength adc.bits --strengths 3,4,6,8
    on_hardware "$1" --hardware noisy_weights --strength dac.bits --strengths 3,4,6,8
    on_hardware "$1" --hardware stuck_cells --strengths 0.01,0.05,0.1
    echo "$1: evaluated until $(date +%H:%M)"
}
export -f on_hardware evaluations
printf '%s\n' "$RUNS"/hardware/*/seed_*/version_0 | xargs -P "$JOBS" -I RUN bash -c 'evaluations "$@"' _ RUN

python scripts/hardware_tables.py "$RUNS/hardware" --document docs/designers.md --figures docs/figures
