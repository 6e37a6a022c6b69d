"""What clients of a cluster are told while parts of it die: `python -m studies.faults`.

Each fault is done to a cluster of its own, `inferx up`, in a network namespace of its own, under
clients that ask without pause. What comes of it is counted, and the journals of the cluster are held
against each other.
"""
