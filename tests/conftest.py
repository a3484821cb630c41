"""What all tests share: how hard hypothesis tries. `HYPOTHESIS_PROFILE=ci` tries harder and is the same every time.

`cover` is the same every time, too, and quick: which lines are reached must not be a matter of luck.
"""

import os

from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile("cover", max_examples=30, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
