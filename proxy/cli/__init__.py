"""What the command line says and asks, by theme. What is done stands in `proxy` and `rules`, imported when needed."""
