"""Imported by every Python under `run` before its program, from PYTHONPATH. Any Python must be able to read this file.

It starts `_borderpost` where that can run, and then does what a sitecustomize of the user's own would have done.
"""

import sys

try:
    if sys.version_info >= (3, 8):
        _borderpost = __import__("_borderpost")  # stands beside this file
        _borderpost.start()
except Exception:  # the program goes on as without us
    pass

_theirs = None
try:
    if sys.version_info >= (3, 8):
        _theirs = _borderpost.other_sitecustomize()
except Exception:  # as above
    pass
if _theirs is not None:
    sys.modules["sitecustomize"] = _theirs
    _theirs.__spec__.loader.exec_module(_theirs)  # what it raises is reported as ever
