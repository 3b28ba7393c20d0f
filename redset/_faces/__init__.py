"""Classes and checks that the sync and the asyncio sets share."""

from typing import TYPE_CHECKING

from redset import _lazy

if TYPE_CHECKING:
    from redset._faces import failures as failures
    from redset._faces import listing as listing
    from redset._faces import worker as worker
else:
    __getattr__ = _lazy.modules(__name__, "failures", "listing", "worker")
