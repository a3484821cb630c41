"""Parameter contracts: what a tool's calls may say in path, query and body. Everything that is not named is refused."""
