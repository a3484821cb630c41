"""`borderpost demo`: one confused agent, an API that counts, and what the API sees without and with Borderpost.

Everything runs on this machine: no key, no network. The agent (`agent`) is a program of its own that imports nothing of
ours; the API (`api`) speaks real TLS; `main` runs the one against the other twice and compares the API's counts.
"""
