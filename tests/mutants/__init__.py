"""Planted faults: small changes to redset that are wrong, each of which a test must notice.

    cd tests && python -m mutants --check
    cd tests && python -m mutants pop-is-sent-again

`catalogue` lists the mutants, and `places` finds the text that each one changes. `runs` applies one
to a copy of the tree and runs the tests that concern it.
"""
