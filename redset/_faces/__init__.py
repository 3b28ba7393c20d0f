"""Classes and checks that the sync and the asyncio sets share."""
