"""Faults under load, seeded: each seed disturbs one step of an app's life, and a judge compares what comes of it."""
