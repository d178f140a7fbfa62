"""What our agent says to an original manager, and when; no I/O.

`worker` is the whole of it, made of `asking` (how it comes to a job) and `delivery` (where the
outputs go, and that the job is done). Words and timers are those of the originals.
"""
