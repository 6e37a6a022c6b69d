"""What each service counts, and how Prometheus reads it: `docs/metrics.md` names every metric.

Laws:
1. What is counted for each request is plain: a few integers, and a bisection for a histogram. They
   take Prometheus' form when somebody scrapes, piece by piece, so that no scrape holds the loop.
2. A label's values are bounded by what there is: functions, nodes, GPUs, tiers, or a closed set. A
   function that is no more takes its series along; sums over all functions keep what it had.
3. Whatever is said to Prometheus is declared as a `Family`, and is in `docs/metrics.md`.
"""
