"""Contracts between pilot, manager and launcher: standard library and pydantic only."""
