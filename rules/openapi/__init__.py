"""From what an API says of itself to a file of tools: text in, text out, and a report of what could not be said.

That is an OpenAPI document, or the answer of an MCP server to `tools/list` (`mcp`).
"""
