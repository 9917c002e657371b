"""``asr-dni study``: a whole matrix of trainings, planned, run, surveyed and reported."""
