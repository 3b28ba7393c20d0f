"""Items into a set: through the scheduler's thread, before their request is acknowledged."""

from __future__ import annotations

from typing import Any

from itemadapter import ItemAdapter
from scrapy.exceptions import NotConfigured
from scrapy.utils.serialize import ScrapyJSONEncoder


class ItemPipeline:
    """An item pipeline that adds each item, as JSON, to the set that ``REDSET_ITEMS`` names.

    It needs `redset.scrapy.Scheduler`, whose thread writes the items. The request of an item is
    acknowledged only after the item is written, so a crash loses none. A request that is processed
    again yields its items again. Equal items are one item as long as they are queued.

    Examples
    --------
    >>> ITEM_PIPELINES = {"redset.scrapy.ItemPipeline": 900}
    >>> REDSET_ITEMS = "%(spider)s:items"
    """

    def __init__(self, crawler: Any) -> None:
        if not crawler.settings.get("REDSET_ITEMS"):
            raise NotConfigured("REDSET_ITEMS is not set")
        self._crawler = crawler
        self._encoder = ScrapyJSONEncoder(sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_crawler(cls, crawler: Any) -> ItemPipeline:
        """Make the pipeline of a crawl.

        Raises
        ------
        NotConfigured
            If ``REDSET_ITEMS`` is not set.
        """
        return cls(crawler)

    def process_item(self, item: Any, spider: Any = None) -> Any:
        """Hand the item over, and return it.

        Raises
        ------
        TypeError
            If JSON cannot represent it.
        RuntimeError
            If the crawl has another scheduler.
        """
        slot = getattr(self._crawler.engine, "_slot", None)
        store = getattr(getattr(slot, "scheduler", None), "store_item", None)
        if store is None:
            raise RuntimeError("redset.scrapy.ItemPipeline needs redset.scrapy.Scheduler")
        store(self._encoder.encode(ItemAdapter(item).asdict()).encode())
        return item
