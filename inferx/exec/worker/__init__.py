"""Workers to run where no inference engine is at hand: OpenAI-compatible servers of declared size.

What they hold and how long they take is real: bytes read from a file, memory that is charged to the
process, tokens that come when they are due. What they say is a function of seed and prompt, so that
whoever restores one from a snapshot can tell whether it is the same worker.
"""
