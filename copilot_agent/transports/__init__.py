"""Carriers of the conversation, and files by signed URL."""
