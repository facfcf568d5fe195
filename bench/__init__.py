"""Measurements of the service: what it does in a second, how long it takes, how much it keeps, and where the time goes.

Nothing of the service depends on this folder; `apportion bench` finds it in a checkout (docs/benchmarks.md).
"""
