# What the scripts that train many runs share; to be sourced from the repository's root, after RUNS is set.
# shellcheck shell=bash
export ASR_DNI=${ASR_DNI:-asr-dni} RUNS=${RUNS:-runs} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# run CONFIG NAME SEED [SETTING ...]: one training in RUNS/NAME/seed_SEED. A run that has its noise_curve.csv is not run
# again; an interrupted one starts anew.
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
