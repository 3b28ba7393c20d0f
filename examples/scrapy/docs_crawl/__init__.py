"""A Scrapy project whose processes share one frontier."""
