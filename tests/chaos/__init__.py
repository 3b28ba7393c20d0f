"""Faults of all kinds, and the promises of a set under them.

    cd tests && python -m chaos walk kills --seed 7 --servers redis62

Worker processes write down every operation before and after they perform it (`history`); `checker`
reads all of that afterwards and says what was lost, what was handed out twice, what came back
changed. `scenarios` has the faults, `walk` compares single steps with a model, `soak` watches the
memory.
"""
