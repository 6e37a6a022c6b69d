"""HTTP servers and clients as a streaming reverse proxy on one core, beside nginx."""
