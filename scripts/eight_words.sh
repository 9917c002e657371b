#!/usr/bin/env bash
# The LSTMs of docs/recipes.md: conventional and noise-trained ones on the eight real words, three seeds each.
#
#   scripts/eight_words.sh                  needs the clips in data/speech_commands_8 (data/README.md)
#   JOBS=2 SEEDS="1 2 3" SIGMAS="1 2" scripts/eight_words.sh
#
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

JOBS=${JOBS:-2} SEEDS=${SEEDS:-1 2 3} SIGMAS=${SIGMAS:-1 2}
source scripts/training_runs.sh

for seed in $SEEDS; do
    echo eight_words_lstm_conventional eight_words/lstm_conventional "$seed"
    for sigma in $SIGMAS; do
        echo eight_words_lstm_dni "eight_words/lstm_dni_$sigma" "$seed" --annealing.sigma "$sigma"
    done
done | xargs -P "$JOBS" -L 1 bash -c 'run "$@"' _

$ASR_DNI compare "$RUNS/eight_words" --output "$RUNS/eight_words/comparison" --title "Eight words of Speech Commands, LSTM"
