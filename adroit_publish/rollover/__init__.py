"""The rules of a rollover: what state it is in, and what evidence moves it to the next one.

Nothing here opens a file, a socket or a clock: times and readings are arguments, POSIX seconds in
UTC. ``rules`` has the table, ``state`` the value that is kept, ``evidence`` what is read of the
world, ``checklist`` the five boxes. May import ``errors`` only.
"""

__all__ = ["checklist", "evidence", "rules", "state"]
