"""The shell: decodes what agents send, asks `rules`, records the decision, and acts on it."""
