"""The node agent: the scheduler's commands, carried out on one GPU node."""
