"""Figures of curves, evaluations, devices and trainings, as specifications."""
