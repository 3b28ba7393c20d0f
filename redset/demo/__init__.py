"""A crawl of a real site, on real processes: ``python -m redset.demo``."""
