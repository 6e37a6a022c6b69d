"""Keep-alive: how long an idle pod stays on its GPU, and who leaves when the room is needed."""
