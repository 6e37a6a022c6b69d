"""The study of the simulator's prediction: one trace, live on this machine and simulated.

`python -m studies.prediction` measures this machine, drives the trace through a real cluster on it,
simulates the same, and writes `docs/results/prediction.md`, its picture and its data.
"""
