"""Studies behind docs/results: each module regenerates one document with one command."""
