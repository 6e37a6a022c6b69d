"""Does packing plus snapshots fill GPUs? Writes docs/results/density.md and its plots.

    python -m studies.density [--jobs 2] [--redraw]

Many functions of one model share one node. Visitors come to each at random, send a few requests
one after another, and leave. The study packs more and more functions on the node, for several
models, instance types and start-up mechanisms, and looks at busy GPU time against the time to the
first token of the requests that had to wait for a start; then at what the slow ones waited for.
"""
