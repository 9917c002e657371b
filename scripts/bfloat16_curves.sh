#!/usr/bin/env bash
# Do trainings with bfloat16 products have other noise curves? Five seeds with each, and one training evaluated with both.
#
#   scripts/bfloat16_curves.sh        needs the clips in data/speech_commands_8; half an hour on one core
#
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SEEDS=${SEEDS:-1 2 3 4 5}
source scripts/training_runs.sh

for seed in $SEEDS; do
    for products in float32 bfloat16; do
        run eight_words_lstm_dni "products/$products" "$seed" --model.network.products "$products" --trainer.max_epochs 12
    done
done
python - "$RUNS/products" <<'PYTHON'
import sys
from pathlib import Path

from asr_dni.evaluation import NoiseCurve
from asr_dni.evaluation.curves.differences import differences

runs = Path(sys.argv[1])
curves = {
    products: [NoiseCurve.from_csv(file) for file in sorted((runs / products).glob("seed_*/version_*/noise_curve.csv"))]
    for products in ("float32", "bfloat16")
}
print(differences(curves, "float32").frame.round(4).to_string())
PYTHON
