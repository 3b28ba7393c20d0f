"""Generated attacks on the compiled core and on what reads a server's replies.

    cd tests && python -m fuzz inputs --count 1000000 --seed 1

Each fuzzer is a module with ``run(count, seed)``; what it draws depends on the seed alone.
"""
