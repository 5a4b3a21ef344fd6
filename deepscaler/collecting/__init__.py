"""Collecting: which span of time to fetch, and appending it to what was fetched before."""
