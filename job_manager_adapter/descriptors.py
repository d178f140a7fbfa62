"""How many files a manager may have open: each attached pilot is one."""

import resource

SPARE = 500
"""For the database, files on their way, users."""
FEW = 4096
_UNLIMITED = 1 << 20


def limit() -> int:
    """What `raise_limit` can reach."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if most == resource.RLIM_INFINITY else most


def raise_limit() -> None:
    """Takes as many as this process may have; most systems start it with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit(), most))
