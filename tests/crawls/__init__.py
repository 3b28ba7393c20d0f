"""Crawls of the demo's site with Scrapy, each in a process of its own."""
