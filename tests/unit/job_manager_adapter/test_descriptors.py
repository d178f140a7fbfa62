import resource

from job_manager_adapter.descriptors import limit, raise_limit


def test_a_process_takes_what_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit(), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
