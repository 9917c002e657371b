#!/usr/bin/env bash
# The README's table and figure: conventional and noise-trained LSTMs on the eight real words, three seeds each.
#
#   scripts/eight_words.sh                  needs the clips in data/speech_commands_8 (data/README.md)
#   JOBS=2 SEEDS="1 2 3" SIGMAS="1 2" scripts/eight_words.sh
#
# A run that has its noise_curve.csv is not run again; an interrupted one starts anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

JOBS=${JOBS:-2} SEEDS=${SEEDS:-1 2 3} SIGMAS=${SIGMAS:-1 2}
export ASR_DNI=${ASR_DNI:-asr-dni} RUNS=${RUNS:-runs} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

run() {
    local config=$1 name=$2 seed=$3
    shift 3
    local folder="$RUNS/$name/seed_$seed"
    if compgen -G "$folder/*/noise_curve.csv" >/dev/null; then
        echo "$folder: done before"
        return
    fi
    mkdir -p "$folder"
    echo "$folder: started $(date +%H:%M)"
    $ASR_DNI fit --config "conf/experiment/$config.yaml" --runs "$RUNS" --name "$name/seed_$seed" \
        --seed_everything "$seed" --trainer.enable_progress_bar false "$@" >"$folder/log.txt" 2>&1 ||
        { echo "$folder: failed, see log.txt" >&2; return 1; }
    echo "$folder: ended $(date +%H:%M)"
}
export -f run

for seed in $SEEDS; do
    echo eight_words_lstm_conventional eight_words/lstm_conventional "$seed"
    for sigma in $SIGMAS; do
        echo eight_words_lstm_dni "eight_words/lstm_dni_$sigma" "$seed" --annealing.sigma "$sigma"
    done
done | xargs -P "$JOBS" -L 1 bash -c 'run "$@"' _

$ASR_DNI compare "$RUNS/eight_words" --output "$RUNS/eight_words/comparison" --title "Eight words of Speech Commands, LSTM"
