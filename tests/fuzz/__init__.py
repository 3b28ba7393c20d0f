"""Generated attacks on the compiled core and on the readers of a server's replies.

    cd tests && python -m fuzz inputs --count 1000000 --seed 1

Each fuzzer is a module with ``run(count, seed)``. The seed alone decides its cases.
"""
