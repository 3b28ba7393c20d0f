"""Performs the effects of operations on the user's client. It does not know sets."""
