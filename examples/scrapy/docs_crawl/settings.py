"""Two settings make the crawl a shared one; the rest is an ordinary project."""

import os

BOT_NAME = "docs_crawl"
SPIDER_MODULES = ["docs_crawl.spiders"]

# --- what redset needs
SCHEDULER = "redset.scrapy.Scheduler"
REDSET_URL = os.environ.get("REDSET_URL", "redis://localhost:6379")

# --- optional: short leases, so that a killed process is missed for seconds only
REDSET_LEASE_TTL = 10

# --- optional: items into a set of the same server
ITEM_PIPELINES = {"redset.scrapy.ItemPipeline": 900}
REDSET_ITEMS = "%(spider)s:items"

# --- optional: Scrapy's limits and delays hold for all processes together
REDSET_POLITE = True
CONCURRENT_REQUESTS_PER_DOMAIN = 8
# DOWNLOAD_DELAY = 1

TELNETCONSOLE_ENABLED = False
LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO")
