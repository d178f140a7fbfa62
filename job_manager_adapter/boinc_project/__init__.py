"""What runs on the server of a BOINC project: it checks receipts, grants credit and makes work.

It needs pydantic and cryptography only (and PyMySQL to grant), and nothing of a manager's inside.
"""
