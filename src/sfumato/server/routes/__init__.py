"""What is served, by path: our own API, OpenAI's Images API, A1111's."""
