"""From an OpenAPI document to a file of tools: text in, text out, and a report of what could not be said."""
