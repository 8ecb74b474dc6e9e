"""Serving: durable jobs over HTTP, drawn by worker processes that share one queue."""
