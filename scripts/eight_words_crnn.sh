#!/usr/bin/env bash
# The README's table and figure, and what docs/recipes.md compares with it: CRNNs on the eight real words, trained without
# noise and under sigma 2 in all behind the convolutions, with and without residual blocks, under a sigma drawn for each clip,
# and at every product under sigma 1, with plain and with separable convolutions, and under a drawn one; three seeds each.
#
#   scripts/eight_words_crnn.sh             needs the clips in data/speech_commands_8 (data/README.md)
#   JOBS=2 SEEDS="1 2 3" scripts/eight_words_crnn.sh
#
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

JOBS=${JOBS:-2} SEEDS=${SEEDS:-1 2 3}
source scripts/training_runs.sh

# What is logged of the validation split: three times a run, five draws.
watched="--noise_curve.watched_sigmas=[1.0,2.0,3.0] --noise_curve.validation_draws=5 --trainer.check_val_every_n_epoch=20"
for seed in $SEEDS; do
    echo eight_words_crnn_dni crnn/dni "$seed" "$watched"
    echo eight_words_crnn_conventional crnn/conventional "$seed" "$watched"
    echo eight_words_crnn_dni_drawn crnn/dni_drawn "$seed" "$watched"
    echo eight_words_crnn_conventional crnn/conventional_separable "$seed" "$watched" --config model/crnn_separable
    echo eight_words_crnn_dni crnn/dni_separable "$seed" "$watched" --config model/crnn_separable
    echo eight_words_crnn_dni_everywhere crnn/dni_everywhere "$seed" "$watched"
    echo eight_words_crnn_dni_drawn_everywhere crnn/dni_drawn_everywhere "$seed" "$watched"
    echo eight_words_crnn_dni_everywhere crnn/dni_everywhere_separable "$seed" "$watched" --config model/crnn_separable
done | xargs -P "$JOBS" -L 1 bash -c 'run "$@"' _

$ASR_DNI compare "$RUNS/crnn/conventional" "$RUNS/crnn/dni" --output "$RUNS/crnn/comparison" \
    --title "Eight words of Speech Commands, CRNN"
