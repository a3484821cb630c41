"""`borderpost doctor`: does each client of a command's environment come through the proxy? Asked of the clients."""
