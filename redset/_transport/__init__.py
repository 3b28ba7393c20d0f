"""Performs the effects of operations on the user's client. It knows no set."""
