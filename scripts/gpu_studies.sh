#!/usr/bin/env bash
# All that docs/recipes.md and docs/studies.md were cut down from, for a machine with a GPU: every lever on three seeds, the long
# trainings of the CRNN, and the paper's whole matrix.
#
#   scripts/gpu_studies.sh                  needs the clips in data/speech_commands_8; goes on where it stopped
#   WORKERS=8 GPUS_PER_WORKER=0.25 RUNS=runs scripts/gpu_studies.sh
#
#   WORKERS            trainings at a time (4); a CRNN on eight words leaves most of a GPU free
#   GPUS_PER_WORKER    part of a GPU for each population of the matrix (0.5)
#   WITHOUT_GPU=1      runs all the same where there is none; on two cores it takes days
#
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

WORKERS=${WORKERS:-4} GPUS_PER_WORKER=${GPUS_PER_WORKER:-0.5} RUNS=${RUNS:-runs}
if [ -z "${WITHOUT_GPU:-}" ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_studies.sh: torch finds no GPU here; WITHOUT_GPU=1 runs it all the same" >&2
    exit 2
fi

levers="$RUNS/recipes"
python scripts/recipes.py train --runs "$levers" --workers "$WORKERS" # all but the students
mapfile -t teachers < <(printf '%s\n' "$levers"/wide/seed_*/version_*/checkpoints/last.ckpt)
python scripts/recipes.py train --runs "$levers" --workers "$WORKERS" --only distilled --teacher "${teachers[@]}"
python scripts/recipes.py page --runs "$levers" --alone
JOBS=$WORKERS RUNS=$RUNS scripts/eight_words_crnn.sh
where=(--gpus_per_worker "$GPUS_PER_WORKER")
[ -z "${WITHOUT_GPU:-}" ] || where=(--workers "$WORKERS")
for study in paper_128 paper; do
    asr-dni study run "$study" --output "$RUNS/study/$study" "${where[@]}"
done
