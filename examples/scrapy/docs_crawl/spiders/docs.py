"""Follows every hyperlink of one site."""

from urllib.parse import urldefrag, urlsplit

import scrapy


class DocsSpider(scrapy.Spider):
    """``scrapy crawl docs -a start=https://docs.python.org/3/``"""

    name = "docs"

    def __init__(self, start="https://docs.python.org/3/", **options):
        super().__init__(**options)
        self.start_urls = [start]
        self.allowed_domains = [urlsplit(start).hostname]

    def parse(self, response):
        yield {"url": response.url, "title": response.css("title::text").get()}
        for href in dict.fromkeys(response.css("a::attr(href)").getall()):
            url = urldefrag(response.urljoin(href)).url
            if url.startswith("http"):
                yield scrapy.Request(url)
